"""Names and numbers of the Snowplow protocol that more than one module needs."""

from typing import FrozenSet

from ._version import __version__

__all__ = [
    "BASE_SCHEMA_PATH",
    "CONTEXT_SCHEMA",
    "DEFAULT_ENCODE_BASE64",
    "KNOWN_PAYLOAD_KEYS",
    "MOBILE_SCHEMA_PATH",
    "REQUIRED_PAYLOAD_KEYS",
    "SCHEMA_TAG",
    "UNSTRUCT_EVENT_SCHEMA",
    "VERSION",
]

VERSION = f"py-{__version__}"
DEFAULT_ENCODE_BASE64 = True

BASE_SCHEMA_PATH = "iglu:com.snowplowanalytics.snowplow"
MOBILE_SCHEMA_PATH = "iglu:com.snowplowanalytics.mobile"
SCHEMA_TAG = "jsonschema"
CONTEXT_SCHEMA = f"{BASE_SCHEMA_PATH}/contexts/{SCHEMA_TAG}/1-0-1"
UNSTRUCT_EVENT_SCHEMA = f"{BASE_SCHEMA_PATH}/unstruct_event/{SCHEMA_TAG}/1-0-0"

# What payload_data/1-0-4 requires and allows. The pipeline throws a whole request away for one payload outside of it.
REQUIRED_PAYLOAD_KEYS: FrozenSet[str] = frozenset({"e", "p", "tv"})
KNOWN_PAYLOAD_KEYS: FrozenSet[str] = frozenset(
    (
        "tna aid p dtm tz e tid eid tv duid nuid uid vid ip res url page refr fp ctype cookie lang"
        " f_pdf f_qt f_realp f_wma f_dir f_fla f_java f_gears f_ag cd ds cs vp mac pp_mix pp_max pp_miy pp_may"
        " ad_ba ad_ca ad_ad ad_uid tr_id tr_af tr_tt tr_tx tr_sh tr_ci tr_st tr_co tr_cu"
        " ti_id ti_sk ti_nm ti_na ti_ca ti_pr ti_qu ti_cu sa sn st sp se_ca se_ac se_la se_pr se_va"
        " ue_na ue_pr ue_px co cx ua tnuid stm sid ttm"
    ).split()
)
