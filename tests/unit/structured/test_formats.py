"""The enforced formats: each matches what its standard and common classes read, and nothing else."""

import pytest
import regex

from rapid_integrations.structured.formats import FORMATS
from rapid_integrations.structured.patterns import for_python

HOST = "example.org"
EXAMPLES = {
    "date": (["2024-02-29"], ["2023-02-29", "2023-2-01", "0000-01-01"]),
    "time": (["08:30:06Z", "23:59:59.25+05:30"], ["24:00:00Z", "08:30:06", "08:30:06+24:00"]),
    "date-time": (["2020-01-31T00:00:00Z"], ["2020-01-31 00:00:00Z", "2020-01-31T00:00:00"]),
    "date-time-local": (["2020-01-31T00:00:00.5"], ["2020-01-31T00:00:00Z"]),
    "time-local": (["10:00:00"], ["10:00:00Z", "10:00"]),
    "duration": (["P1D", "PT1H2M3S", "P2W", "P1DT2H"], ["P", "PT", "PT1H2S", "PT0.5S", "P1D2H", "P1WT1H", "1D"]),
    "email": ([f"a.b@{HOST}", "~a@b.co"], [f".a@{HOST}", f"a..b@{HOST}", "a@b=c.org", "a b@c.org", "a@"]),
    "idn-email": (["δοκιμή@παράδειγμα.δοκιμή", f"a@{HOST}"], ["2962", "a＠b.org"]),
    "hostname": (["a-b.c1", "localhost"], ["-a", "a-", "a_b", "a.", "", "\u212a.org", ".".join(["a" * 20] * 6)]),
    "idn-hostname": (["실례.테스트", HOST], ["〮a b", "-a"]),
    "ipv4": (["127.0.0.1"], ["127.0.0.01", "256.1.1.1", "1.2.3"]),
    "ipv6": (["::1", "1:2::3", "1:2:3:4:5:6:7:8"], ["1::2::3", "12345::", "fe80::a%eth1", "1:2:3:4:5:6:7"]),
    "uri": (
        [f"https://a.{HOST}:80/b?c=%20#d", "urn:a:b", "mailto:a@b.c"],
        ["/a", "//a/b", "http://a b", "http://a/%6G"],
    ),
    "iri": ([f"http://ƒøø.{HOST}/é?ü"], ["/é", "http://a\n"]),
    "uri-reference": (
        ["", "/a", "a/b?c", "#d", "//a.b/c", "./a:b", f"http://{HOST}"],
        ["a:b c", "\\a", "/%zz", "/é", "1:b"],
    ),
    "iri-reference": (["/é", "é"], ["\\é"]),
    "uri-template": (["", "a/{b}", "{?x,y*}", "{v:10}", "a%41"], ["{", "{}", "{a,,b}", "{v:0}", "a b", "a}"]),
    "json-pointer": (["", "/a/~0~1/", "/"], ["a", "/~2", "/~", "#"]),
    "relative-json-pointer": (["0", "10#", "1/a"], ["01", "-1", "0##", "", "/a"]),
    "uuid": (["2eb8aa08-AA98-11ea-B4Aa-73b441d16380"], ["2eb8aa08aa9811eab4aa73b441d16380", "g" * 36]),
    "base64": (["", "QQ==", "QUJD"], ["Q", "QQ=", "Q-=="]),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_a_format_matches(name):
    pattern = regex.compile(for_python(f"^(?:{FORMATS[name]})$"), flags=regex.V1)
    right, wrong = EXAMPLES[name]
    assert [text for text in right if not pattern.search(text)] == []
    assert [text for text in wrong if pattern.search(text)] == []
