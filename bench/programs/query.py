"""The `name` of a query string, for the servers that hand their application the raw text.

A loop over the pairs rather than urllib's parse_qs, which costs 2 µs more a request: a peer is measured at its best.
"""

from urllib.parse import unquote_plus


def name_in(query: str) -> str:
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == "name":
            return unquote_plus(value)
    return "Nomad"
