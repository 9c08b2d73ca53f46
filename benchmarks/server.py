"""A storage server as far away as a cloud's: 50 ms to answer, 100 MB/s.

python3 server.py FOLDER [IP]   prints its address, serves GET and takes POST until it is ended
"""

import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

LATENCY = 0.05  # seconds
BANDWIDTH = 100e6  # bytes per second, of each connection
PIECE = 1 << 18  # bytes


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(LATENCY)
        super().do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(LATENCY)
        self.send_response(204)
        self.end_headers()

    def copyfile(self, source, outputfile) -> None:
        started, sent = time.monotonic(), 0
        while piece := source.read(PIECE):
            outputfile.write(piece)
            sent += len(piece)
            time.sleep(max(0.0, started + sent / BANDWIDTH - time.monotonic()))

    def log_message(self, *args) -> None:
        pass


def main() -> None:
    folder, ip = (*sys.argv[1:], "127.0.0.1")[:2]
    with ThreadingHTTPServer((ip, 0), partial(Handler, directory=folder)) as server:
        print(f"http://{ip}:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
