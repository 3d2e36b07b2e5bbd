"""Both clouds' metadata services on loopback, as far as the preemption agent asks them."""

import http.server
import threading
import urllib.parse


class Metadata:
    """A metadata service whose answers a test sets; it keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.documents: dict[str, tuple[int, str]] = {}
        self.tokens: list[str] = []
        self.changed = threading.Event()
        self.preempted = "FALSE"
        metadata = self

        class Serve(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                metadata.answer(self)

            do_PUT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Serve)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        address = urllib.parse.urlparse(request.path)
        self.requests.append((request.command, request.path))
        status, body, headers = self.aws(request) if address.path.startswith("/latest") else self.gcp(request)
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body.encode())

    def aws(self, request: http.server.BaseHTTPRequestHandler) -> tuple[int, str, dict[str, str]]:
        if request.path == "/latest/api/token":
            if request.command != "PUT" or "X-aws-ec2-metadata-token-ttl-seconds" not in request.headers:
                return 400, "", {}
            self.tokens.append(f"token-{len(self.tokens)}")
            return 200, self.tokens[-1], {}
        if request.headers.get("X-aws-ec2-metadata-token") != (self.tokens or [None])[-1]:
            return 401, "", {}
        status, body = self.documents.get(request.path.removeprefix("/latest/meta-data/"), (404, ""))
        return status, body, {}

    def gcp(self, request: http.server.BaseHTTPRequestHandler) -> tuple[int, str, dict[str, str]]:
        address = urllib.parse.urlparse(request.path)
        if request.headers.get("Metadata-Flavor") != "Google":
            return 403, "", {}
        if address.path != "/computeMetadata/v1/instance/preempted":
            return 404, "", {}
        asked = urllib.parse.parse_qs(address.query)
        if asked.get("wait_for_change") == ["true"] and asked.get("last_etag") == [f"etag-{self.preempted}"]:
            self.changed.wait(float(asked["timeout_sec"][0]))
        return 200, self.preempted, {"ETag": f"etag-{self.preempted}"}
