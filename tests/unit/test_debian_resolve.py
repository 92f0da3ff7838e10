"""Which packages are unpacked for what is wanted: tables of small indexes."""

from __future__ import annotations

import itertools

import pytest

from builder.bases.debian.index import Index, Relation
from builder.bases.debian.resolve import resolve
from builder.errors import MirrorError, UsageError

PARAGRAPH = """\
Package: {name}
Version: {version}
Architecture: amd64
Filename: pool/{name}_{version}.deb
Size: 1
SHA256: {digest}
"""


def index(*suites: str) -> Index:
    """Suites of lines like `python3 3.11 Depends=libc6 (>= 2)|musl; Provides=python`."""
    made = Index("amd64")
    for number, suite in enumerate(suites):
        paragraphs = []
        for line in filter(str.strip, suite.splitlines()):
            head, _, rest = line.strip().partition(" ")
            version, _, fields = rest.partition(" ")
            text = PARAGRAPH.format(name=head, version=version, digest="0" * 64)
            for each in filter(None, fields.split(";")):
                name, _, value = each.strip().partition("=")
                text += f"{name}: {value}\n"
            paragraphs.append(text)
        made.add(f"http://mirror.example.com/{number}", "\n".join(paragraphs).encode())
    return made


def chosen(wanted: str, *suites: str, unneeded: tuple[str, ...] = ()) -> str:
    return " ".join(
        f"{each.name}={each.version}" for each in resolve(wanted.split(), index(*suites), unneeded)
    )


@pytest.mark.parametrize(
    ("wanted", "suite", "expected"),
    [
        pytest.param("a", "a 1 Depends=b, c\nb 1\nc 1\nd 1", "a=1 b=1 c=1", id="only what is needed"),
        pytest.param("a", "a 1 Pre-Depends=b\nb 1 Depends=c\nc 1", "a=1 b=1 c=1", id="closure"),
        pytest.param("a", "a 1 Depends=b\nb 1 Depends=a", "a=1 b=1", id="circle"),
        pytest.param("a", "a 1 Depends=b | c\nb 1\nc 1", "a=1 b=1", id="first alternative"),
        pytest.param("a", "a 1 Depends=x | c\nc 1", "a=1 c=1", id="first alternative that there is"),
        pytest.param("a c", "a 1 Depends=b | c\nb 1\nc 1", "a=1 c=1", id="alternative that is wanted anyway"),
        pytest.param("a", "a 1 Depends=b (>= 2) | c\nb 1\nc 1", "a=1 c=1", id="alternative of a version"),
        pytest.param("a", "a 1 Depends=b:any (>= 1)\nb 1", "a=1 b=1", id="any architecture"),
        pytest.param("a", "a 1 Depends=b (<< 2~)\nb 1.9", "a=1 b=1.9", id="tilde sorts before"),
        pytest.param("a", "a 1 Depends=v\nz 1 Provides=v\ny 1 Provides=v", "a=1 y=1", id="provider by name"),
        pytest.param(
            "a",
            "a 1 Depends=v\ny 1 Provides=v\nz 1 Provides=v; Priority=required",
            "a=1 z=1",
            id="provider by priority",
        ),
        pytest.param(
            "a", "a 1 Depends=v (>= 2)\ny 1 Provides=v\nz 1 Provides=v (= 2)", "a=1 z=1", id="versioned"
        ),
        pytest.param("a z", "a 1 Depends=v\ny 1 Provides=v\nz 1 Provides=v", "a=1 z=1", id="provider there"),
        pytest.param("v", "z 1 Provides=v", "z=1", id="a virtual package with one provider can be wanted"),
        pytest.param("a", "a 1 Breaks=b (<< 1); Depends=b\nb 1", "a=1 b=1", id="breaks only older ones"),
        pytest.param("a", "a 1 Conflicts=v; Provides=v", "a=1", id="nothing conflicts with itself"),
    ],
)
def test_the_closure_is_what_apt_would_choose(wanted: str, suite: str, expected: str) -> None:
    assert chosen(wanted, suite) == expected


def test_of_several_suites_the_highest_version_counts_and_of_equal_ones_the_first() -> None:
    assert chosen("a b", "a 1.0\nb 2", "a 1.0+deb12u1\nb 1") == "a=1.0+deb12u1 b=2"
    (package,) = resolve(["a"], index("a 1", "a 1"))
    assert package.file.url.startswith("http://mirror.example.com/0/")


def test_what_only_installation_scripts_use_is_left_out() -> None:
    suite = "a 1 Depends=debconf (>= 0.5) | debconf-2.0, b\nb 1\ndebconf 1 Depends=perl-base\nperl-base 5"
    assert chosen("a", suite, unneeded=("debconf",)) == "a=1 b=1"
    assert chosen("a debconf", suite, unneeded=("debconf",)) == "a=1 b=1 debconf=1 perl-base=5"


def test_the_order_in_which_packages_are_wanted_decides_nothing() -> None:
    suite = "a 1 Depends=b | c\nb 1\nc 1\nd 1 Depends=c | b"
    assert chosen("a d", suite) == chosen("d a", suite)


@pytest.mark.parametrize(
    ("wanted", "suite", "words"),
    [
        ("libgl11", "libgl1 1", ["no package 'libgl11'", 'did you mean "libgl1"']),
        ("awk", "mawk 1 Provides=awk\ngawk 1 Provides=awk", ["'awk'", "gawk, mawk"]),
        ("a", "a 1 Depends=b (>= 2)\nb 1", ["a depends on b (>= 2)", "it has b 1"]),
        ("a", "a 1 Depends=b | c", ["a depends on b | c, which the suite does not have"]),
        ("a b", "a 1 Conflicts=b\nb 1", ["a 1 cannot be installed beside b 1: it excludes b"]),
        ("a b", "a 1 Breaks=b (<< 3)\nb 2", ["excludes b (<< 3)"]),
        ("a b", "a 1 Conflicts=v\nb 1 Provides=v", ["beside b 1: it excludes v"]),
    ],
)
def test_what_cannot_be_resolved_is_a_usage_error_that_says_why(
    wanted: str, suite: str, words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        chosen(wanted, suite)
    said = f"{refused.value} {refused.value.remedy}"
    assert [word for word in words if word not in said] == []


def test_a_paragraph_without_a_digest_is_refused() -> None:
    made = Index("amd64")
    made.add(
        "http://mirror.example.com", b"Package: a\nVersion: 1\nArchitecture: amd64\nFilename: a\nSize: 1\n"
    )
    with pytest.raises(MirrorError, match="sha256"):
        made.find("a")


def test_a_virtual_package_without_a_version_meets_no_version() -> None:
    assert not Relation("v", ">=", "1").accepts(None)
    assert Relation("v").accepts(None)


# In the order of Debian Policy 5.6.12; the forms are those that indexes of Debian have.
RISING = (
    "0.9~~ 0.9~rc1-1 0.9 0.9-1~ 0.9-1 0.9-1+b1 0.9-1.1 0.9+ 0.9+dfsg-1 0.10 1 1a 1aa 1+~1 1.0 1:0.1~".split()
)


def test_versions_are_ordered_as_dpkg_orders_them() -> None:
    made = index("\n".join(f"a {version}" for version in reversed(RISING)))
    for version, later in itertools.pairwise(RISING):
        assert Relation("a", "<<", later).accepts(version)
        assert not Relation("a", ">=", later).accepts(version)
    highest = made.find("a")
    assert highest
    assert highest.version == RISING[-1]


def test_a_version_without_revision_is_one_with_revision_0() -> None:
    assert Relation("a", "=", "1.0-0").accepts("1.0")


@pytest.mark.parametrize("depends", ["(>= 1)", "b (> 1)", "b (1)", "b (>= 1_0)", "b (>= 1", "b | | c"])
def test_a_relation_that_cannot_be_read_is_refused(depends: str) -> None:
    with pytest.raises(MirrorError, match="cannot be read"):
        index(f"a 1 Depends={depends}").find("a")
