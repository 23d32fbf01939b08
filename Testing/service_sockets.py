"""What tests of the service's clients share: certificates, and sockets that do what networks do to people."""

import datetime
import http.client
import ipaddress
import json
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HELLO = {"service": "refseg", "api": [1], "version": "0.1.0"}


def a_certificate(folder, name="127.0.0.1", days=(-1, 30)):
    """(certificate, key) files of a server that signs for itself, valid from and to so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "RefSeg test")])
    try:
        known_as = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        known_as = x509.DNSName(name)
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([known_as]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@contextmanager
def a_tcp_server(serve):
    """A listening socket; serve(connection) is called for each connection in a thread. Gives the port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def accept():
            while not over.is_set():
                with suppress(OSError):
                    connection, _ = listening.accept()
                    threading.Thread(target=handled, args=(connection,), daemon=True).start()

        def handled(connection):
            with connection, suppress(OSError):
                connection.settimeout(10)
                serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        over.set()
        thread.join()


@contextmanager
def an_http_server(answer, tls=None):
    """An HTTP server. answer(method, path, headers, body) -> (status, headers, body), or None to hang up instead.

    tls: (certificate, key). Gives the port.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = answer(self.command, self.path, dict(self.headers), body)
            if said is None:
                self.close_connection = True
                return
            status, headers, content = said
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = do_CONNECT = _answer

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            """Clients that hang up are what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        # The handshake belongs to the connection's own thread, not to the one that accepts.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Relay:
    """A way to a server that can lose what passes: `lose("request", about)` before the server hears of it,
    `lose("answer", about)` after it has answered; about: part of METHOD PATH of the exchanges to lose."""

    def __init__(self, port):
        self._to, self._losses, self.passed = port, [], []

    def lose(self, what, about, times=1):
        """Lose the next such exchanges."""
        self._losses += [(what, about)] * times

    def pass_on(self, method, path, headers, body):
        """See an_http_server."""
        self.passed.append(f"{method} {path}")
        loss = next((one for one in self._losses if one[1] in self.passed[-1]), ("", ""))
        if loss in self._losses:
            self._losses.remove(loss)
        if loss[0] == "request":
            return None
        server = http.client.HTTPConnection("127.0.0.1", self._to, timeout=30)
        try:
            server.request(method, path, body, headers)
            response = server.getresponse()
            content = response.read()
        finally:
            server.close()
        return None if loss[0] == "answer" else (response.status, dict(response.headers), content)


def said(values, **headers):
    """An answer of a RefSeg service, for an_http_server."""
    return 200, {"X-RefSeg-API": "1", **headers}, json.dumps(values).encode()
