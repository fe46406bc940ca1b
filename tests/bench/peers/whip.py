"""The HTTP side of WHIP (RFC 9725), as much as a benchmark needs: POST /whip/NAME with an offer, DELETE /whip/NAME."""

import http.server


def serve(listen, publish, leave):
    """Never returns. `publish(name, offer)` gives the answer; both are called on a thread for each request."""

    class Whip(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.reply(201, publish(self.name(), offer).encode())

        def do_DELETE(self):
            leave(self.name())
            self.reply(200, b"")

        def name(self):
            return self.path.rsplit("/", 1)[-1]

        def reply(self, status, body):
            self.send_response(status)
            self.send_header("Content-Type", "application/sdp")
            self.send_header("Location", self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    host, port = listen.rsplit(":", 1)
    http.server.ThreadingHTTPServer((host, int(port)), Whip).serve_forever()
