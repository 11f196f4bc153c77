"""A WSGI application that tracks an event for each request, and answers with the number of its process."""

import os

from application import track

track("at import")


def serve(environ, start_response):
    track(environ["QUERY_STRING"])
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
