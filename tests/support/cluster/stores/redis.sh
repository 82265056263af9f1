# What the image docker.io/library/redis does: it listens on all addresses, and its arguments are those of the server.
exec redis-server --bind 0.0.0.0 --protected-mode no --dir /data "$@"
