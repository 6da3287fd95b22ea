"""A guest book: POST / writes an entry, GET / shows the last ten."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg

VERSION = os.environ.get("APP_VERSION", "1")
PORT = int(os.environ.get("PORT", "8000"))
# The longest entry, in bytes.
ENTRY_MAX = 10_000


def database():
    # The connection's settings are in PGHOST, PGUSER, PGPASSWORD and PGDATABASE.
    return psycopg.connect(connect_timeout=2)


class Handler(BaseHTTPRequestHandler):
    # A client that sends nothing does not keep a thread for ever.
    timeout = 10

    def do_GET(self):
        try:
            if self.path == "/health":
                with database() as connection:
                    connection.execute("select 1 from entries limit 1")
                self.answer(200, "ok\n")
            elif self.path == "/":
                with database() as connection:
                    rows = connection.execute("select text from entries order by id desc limit 10").fetchall()
                self.answer(200, f"version {VERSION}\n" + "".join(f"- {text}\n" for (text,) in rows))
            else:
                self.answer(404, "try /\n")
        except psycopg.Error as error:
            self.answer(503, f"database: {error}\n")

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        if size > ENTRY_MAX:
            return self.answer(413, f"at most {ENTRY_MAX} bytes\n")
        text = self.rfile.read(size).decode(errors="replace")
        try:
            with database() as connection:
                connection.execute("insert into entries (text) values (%s)", (text,))
            self.answer(200, "thank you\n")
        except psycopg.Error as error:
            self.answer(503, f"database: {error}\n")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Release", VERSION)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # What waits to be accepted; the default of 5 is too few for a burst.
    request_queue_size = 512
    # At the end, server_close() waits for those that are being answered.
    daemon_threads = False


server = Server(("0.0.0.0", PORT), Handler)


def stop(*_):
    # From another thread: this one is in serve_forever.
    threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print(f"version {VERSION} listens on {PORT}")
server.serve_forever()
server.server_close()
