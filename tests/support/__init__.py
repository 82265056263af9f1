"""What several tests need: networks, images, and servers that the tests start by themselves."""
