"""Reading of datasets: arrays of numpy and safetensors, and zip archives of images in class folders.

No pickle is read. Sizes in headers are compared with the real ones before memory is allocated.
"""
