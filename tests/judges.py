"""A small real HTTP server that answers as an OpenAI-compatible endpoint does, and says what it was asked."""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ASKED = re.compile(r"<right_answer>\n(.*)\n</right_answer>\n<candidate_answer>\n(.*)\n</candidate_answer>", re.DOTALL)


def content(text):
    """An answer of the usual form."""
    return 200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}, {}


def by_letter(gold, prediction):
    """Right is what begins with the same letter."""
    return content("A" if gold[0].lower() == prediction[0].lower() else "B")


class Server(ThreadingHTTPServer):
    """Takes down each request.

    Args:
        reply: Called with the number of requests so far, the right answer and the one to be marked; it gives status,
            body (text, or what becomes JSON) and headers.
    """

    daemon_threads = True

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.seen, self.lock = reply, [], threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with self.server.lock:
            self.server.seen.append({"path": self.path, "headers": dict(self.headers), "body": body})
            number = len(self.server.seen)
        gold, prediction = ASKED.search(json.loads(body)["messages"][0]["content"]).groups()
        status, said, headers = self.server.reply(number, gold, prediction)
        said = (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(said)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args):
        """Nothing is said."""


@contextmanager
def served(reply=lambda number, gold, prediction: by_letter(gold, prediction)):
    """A server for the block; see `Server`."""
    server = Server(reply)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def dead_url():
    """An address where nobody listens: the port was free a moment ago."""
    with served() as server:
        return server.url
