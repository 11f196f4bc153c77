"""Endpoints: how a collector's address becomes the URL that requests go to."""

import enum

import pytest

from snowplow_tracker._endpoint import METHODS, PROTOCOLS, collector_uri


def uri(endpoint, protocol="https", port=None, method="get"):
    return collector_uri(endpoint, protocol, port, method)


def test_each_method_has_its_route():
    """POST goes to the tracker protocol's route, GET to the pixel's."""
    post = uri("collector.example.com", method="post")
    get = uri("collector.example.com", method="get")

    assert post == "https://collector.example.com/com.snowplowanalytics.snowplow/tp2"
    assert get == "https://collector.example.com/i"


@pytest.mark.parametrize("protocol", ["http", "https"])
def test_protocol_counts_for_an_endpoint_without_a_scheme(protocol):
    """A bare host name gets the protocol that is asked for."""
    assert uri("collector.example.com", protocol) == f"{protocol}://collector.example.com/i"


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://collector.example.com", "http://collector.example.com/i"),
        ("HTTP://collector.example.com", "http://collector.example.com/i"),
        ("hTTpS://collector.example.com", "https://collector.example.com/i"),
    ],
)
@pytest.mark.parametrize("protocol", ["http", "https"])
def test_scheme_of_the_endpoint_wins_in_any_case(endpoint, expected, protocol):
    """A scheme in the endpoint counts before the protocol, however it is written."""
    assert uri(endpoint, protocol) == expected


@pytest.mark.parametrize("endpoint", ["ftp://c.example", "ws://c.example", "httpss://c.example", "git+ssh://c.example"])
def test_other_scheme_is_refused(endpoint):
    """Any scheme but http and https is a ValueError that shows the endpoint."""
    with pytest.raises(ValueError, match="must be an http or https address") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


def test_port_may_be_an_argument():
    """A port that is given beside the endpoint is put into the URL."""
    assert uri("collector.example.com", port=9090) == "https://collector.example.com:9090/i"


def test_port_may_be_part_of_the_endpoint():
    """A port in the endpoint is kept, also where it is the default one."""
    assert uri("collector.example.com:9090") == "https://collector.example.com:9090/i"
    assert uri("http://collector.example.com:80/") == "http://collector.example.com:80/i"


def test_port_may_be_given_twice_if_both_agree():
    """The same port as argument and in the endpoint is no contradiction."""
    assert uri("http://collector.example.com:9090", port=9090) == "http://collector.example.com:9090/i"


def test_ports_that_disagree_are_refused():
    """Two ports are a ValueError that shows both and the endpoint."""
    with pytest.raises(ValueError, match="names port 9090, but port is 8080") as caught:
        uri("http://collector.example.com:9090", port=8080)

    assert "'http://collector.example.com:9090'" in str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_port_out_of_range_is_refused(port):
    """A port that cannot be is a ValueError that shows it."""
    with pytest.raises(ValueError, match=f"^port must .*, got {port}$"):
        uri("collector.example.com", port=port)


@pytest.mark.parametrize("port", [True, "80", 80.0], ids=repr)
def test_port_of_another_type_is_refused(port):
    """A port that is no integer is a TypeError that shows it."""
    with pytest.raises(TypeError, match=r"^port must be an integer, got ") as caught:
        uri("collector.example.com", port=port)

    assert repr(port) in str(caught.value)


@pytest.mark.parametrize("endpoint", ["collector.example.com/", "https://collector.example.com//"])
def test_trailing_slashes_are_left_out(endpoint):
    """A slash at the end does not become two in the middle."""
    assert uri(endpoint) == "https://collector.example.com/i"


@pytest.mark.parametrize("endpoint", ["collector.example.com/a/b", "https://collector.example.com/a/b/"])
def test_path_prefix_is_kept(endpoint):
    """A path stands before the collector's own."""
    assert uri(endpoint) == "https://collector.example.com/a/b/i"


@pytest.mark.parametrize("endpoint", ["  collector.example.com ", "\thttps://collector.example.com/\n"])
def test_surrounding_blanks_are_left_out(endpoint):
    """Blanks around an endpoint, as they come from configuration files, do not count."""
    assert uri(endpoint) == "https://collector.example.com/i"


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("::1", "https://[::1]/i"),
        ("[::1]", "https://[::1]/i"),
        ("http://[2001:db8::1]", "http://[2001:db8::1]/i"),
        ("http://[2001:DB8::1]:9090/a", "http://[2001:db8::1]:9090/a/i"),
        ("fe80::1%eth0", "https://[fe80::1%eth0]/i"),
        ("::ffff:192.0.2.1", "https://[::ffff:192.0.2.1]/i"),
    ],
)
def test_ipv6_address_is_a_host(endpoint, expected):
    """An IPv6 literal may stand alone or in brackets, and is in brackets in the URL."""
    assert uri(endpoint) == expected


def test_ipv6_address_takes_a_port():
    """A port goes behind the brackets."""
    assert uri("::1", port=9090) == "https://[::1]:9090/i"


def test_ipv4_address_is_a_host():
    """An IPv4 address needs nothing special."""
    assert uri("192.0.2.1:9090") == "https://192.0.2.1:9090/i"


def test_credentials_are_kept():
    """User and password stay in front of the host, case and all; a port behind them is found."""
    assert uri("https://Ann:S:cret@Collector.example.com:9090/a") == "https://Ann:S:cret@collector.example.com:9090/a/i"


def test_host_outside_of_ascii_is_kept():
    """An internationalised host name passes."""
    assert uri("münchen.example") == "https://münchen.example/i"


@pytest.mark.parametrize(
    "endpoint",
    ["collector.example.com?x=1", "https://collector.example.com/a?", "collector.example.com#top", "[::1]/#"],
)
def test_query_string_and_fragment_are_refused(endpoint):
    """What could only be lost is a ValueError that shows the endpoint."""
    with pytest.raises(ValueError, match="must not have a query string or a fragment") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("endpoint", ["http:/h.example", "HTTPS:/h.example/path", "https:/"])
def test_slash_too_few_is_told_of(endpoint):
    """What looks like a scheme with one slash is no host called `http`."""
    with pytest.raises(ValueError, match="must have two slashes behind its scheme, got '"):
        collector_uri(endpoint, "https", None, "post")


@pytest.mark.parametrize("endpoint", ["", "   ", "\n", "http://", " https:// "], ids=repr)
def test_empty_endpoint_is_refused(endpoint):
    """An endpoint with nothing in it is a ValueError that shows it."""
    with pytest.raises(ValueError, match=r"^endpoint must name a host, got ") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("endpoint", ["http:///path", "/path", ":9090", "user@", "https://@:9090"])
def test_endpoint_without_a_host_is_refused(endpoint):
    """A path, a port or a user alone is a ValueError that shows the endpoint."""
    with pytest.raises(ValueError, match="it names no host") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["c.example:port", "c.example:99999", "c.example:80:90", "c.example:-1", "http:c.example", "1::2::3"],
)
def test_port_that_is_none_is_refused(endpoint):
    """What follows the colon must be a port, or it is a ValueError that shows the endpoint."""
    with pytest.raises(ValueError, match="cannot be parsed") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


def test_port_zero_in_the_endpoint_is_refused():
    """Nothing listens on port 0."""
    with pytest.raises(ValueError, match=r"^endpoint 'c\.example:0' names port 0$"):
        uri("c.example:0")


@pytest.mark.parametrize("endpoint", ["[::1", "http://[::1", "::1]", "[::zz]", "[192.0.2.1]", "[v1.x]", "[c.example]"])
def test_brackets_hold_an_ipv6_address_or_are_refused(endpoint):
    """Anything else in brackets, or half a pair of them, is a ValueError that shows the endpoint."""
    with pytest.raises(ValueError, match="cannot be parsed") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("endpoint", ["a..b", ".example.com", f"{'x' * 64}.example.com"])
def test_host_that_no_resolver_takes_is_refused(endpoint):
    """Empty and overlong labels are a ValueError that shows the endpoint."""
    with pytest.raises(ValueError, match="cannot be parsed") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("character", [" ", "\t", "\n", "\x00", "\x7f", "<", ">", '"', "\\", "^", "`", "{", "|", "}"])
def test_character_that_no_url_has_is_refused(character):
    """A blank or another forbidden character in the middle is a ValueError that shows the endpoint."""
    endpoint = f"collector{character}.example.com"

    with pytest.raises(ValueError, match="must not hold blanks or other characters that no URL has") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


@pytest.mark.parametrize("endpoint", [None, True, 5, b"collector.example.com", ["c"]], ids=repr)
def test_endpoint_of_another_type_is_refused(endpoint):
    """An endpoint that is no string is a TypeError that shows it."""
    with pytest.raises(TypeError) as caught:
        uri(endpoint)

    assert str(caught.value) == f"endpoint must be a string, got {endpoint!r}"


def test_protocol_is_one_of_two():
    """Another protocol is a ValueError that shows it and those that there are."""
    assert sorted(PROTOCOLS) == ["http", "https"]
    with pytest.raises(ValueError, match=r"^protocol must be one of 'http', 'https', got 'ftp'$"):
        uri("collector.example.com", protocol="ftp")


def test_protocol_of_another_type_is_refused():
    """A protocol that is no string is a TypeError that shows it."""
    with pytest.raises(TypeError, match=r"^protocol must be a string, got None$"):
        uri("collector.example.com", protocol=None)


def test_method_is_one_of_two():
    """Another method is a ValueError that shows it and those that there are."""
    assert sorted(METHODS) == ["get", "post"]
    with pytest.raises(ValueError, match=r"^method must be one of 'get', 'post', got 'put'$"):
        uri("collector.example.com", method="put")


def test_method_of_another_type_is_refused():
    """A method that is no string is a TypeError that shows it."""
    with pytest.raises(TypeError, match=r"^method must be a string, got True$"):
        uri("collector.example.com", method=True)


@pytest.mark.parametrize("endpoint", ["http://http://c.example", "c.example//x", "c.example:+80", "c.example:8_0"])
def test_what_only_looks_like_an_endpoint_is_refused(endpoint):
    """Two schemes, empty parts of a path and numbers that only Python reads are mistakes."""
    with pytest.raises(ValueError, match="endpoint") as error:
        collector_uri(endpoint, "https", None, "post")

    assert repr(endpoint) in str(error.value)


@pytest.mark.parametrize(
    "endpoint", ["☃.example", "a\xa0b.example", "exa%mple.com", "*.example", "https://雪:雪@c.example"]
)
def test_endpoint_that_requests_refuses_is_refused(endpoint):
    """Where each request would fail, the endpoint is a ValueError that shows it."""
    with pytest.raises(ValueError, match="cannot be requested") as caught:
        uri(endpoint)

    assert repr(endpoint) in str(caught.value)


def test_enums_are_what_they_hold():
    """A protocol and a port from enums are put into the URL as text and as a number."""

    class Protocol(str, enum.Enum):
        HTTP = "http"

    class Port(int, enum.Enum):
        WEB = 8080

    assert uri("c.example", Protocol.HTTP, port=Port.WEB) == "http://c.example:8080/i"
