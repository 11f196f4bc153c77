"""Settings of a tracker."""

import pytest

from snowplow_tracker import TrackerConfiguration


def test_defaults():
    """Nothing has to be set."""
    config = TrackerConfiguration()

    assert config.encode_base64 is True
    assert config.json_encoder is None


@pytest.mark.parametrize("encode_base64", [True, False, None])
def test_settings_can_be_read_and_changed(encode_base64):
    """Both settings are attributes."""
    config = TrackerConfiguration(encode_base64=encode_base64, json_encoder=repr)
    first = (config.encode_base64, config.json_encoder)

    config.encode_base64 = False
    config.json_encoder = None

    assert first == (encode_base64, repr)
    assert (config.encode_base64, config.json_encoder) == (False, None)


@pytest.mark.parametrize(("name", "value"), [("encode_base64", "x"), ("encode_base64", 0), ("json_encoder", 3)])
def test_wrong_values_are_refused_where_they_are_set(name, value):
    """A value of a wrong type raises TypeError with its name, and changes nothing."""
    config = TrackerConfiguration()
    message = f"^{name} must be .*, got {value!r}$"

    with pytest.raises(TypeError, match=message):
        TrackerConfiguration(**{name: value})
    with pytest.raises(TypeError, match=message):
        setattr(config, name, value)

    assert config.encode_base64 is True
    assert config.json_encoder is None
