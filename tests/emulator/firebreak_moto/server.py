"""How the server handles requests."""

from threading import Lock

from moto.moto_server.werkzeug_app import DomainDispatcherApplication


def requests_are_atomic():
    """AWS: concurrent calls do not break each other. moto: its threads change a dictionary while another iterates."""
    lock, call = Lock(), DomainDispatcherApplication.__call__

    def one_at_a_time(self, environ, start_response):
        with lock:
            return call(self, environ, start_response)

    DomainDispatcherApplication.__call__ = one_at_a_time
