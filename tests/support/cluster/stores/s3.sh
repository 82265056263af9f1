# moto in place of SeaweedFS. It checks no credentials.
exec python3 /opt/stores/s3.py
