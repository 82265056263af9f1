"""An S3 server. It has the bucket `nern`, which SeaweedFS makes at the first write of an administrator."""

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import run_simple

PORT = 8333

if __name__ == "__main__":
    app = create_backend_app("s3")
    app.test_client().put("/nern")
    run_simple("0.0.0.0", PORT, app, threaded=True)
