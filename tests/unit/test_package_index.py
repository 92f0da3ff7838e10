"""Where packages come from on this machine: uv's settings, else pip's, and who may see the credentials."""

from __future__ import annotations

import netrc
import os
from pathlib import Path

import pytest

from builder.host.certificates import ca_bundle
from builder.host.package_index import (
    IndexSettings,
    index_settings,
    logins,
    netrc_text,
    redact,
    uv_arguments,
    uv_environment,
    without_credentials,
)

INDEX = "https://user:s3cret@index.example.com/simple"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder; together with `environ` it hides the machine's own settings."""
    return tmp_path


def environ(home: Path, **variables: str) -> dict[str, str]:
    """Variables that hide the machine's settings below those of `home`."""
    hidden = {
        "HOME": str(home),
        "XDG_CONFIG_DIRS": str(home / "xdg"),
        "VIRTUAL_ENV": str(home / "venv"),
        "PIP_CONFIG_FILE": str(home / "pip.conf"),
        "UV_NO_CONFIG": "1",
    }
    return hidden | variables


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# Whose settings


def test_without_settings_uv_is_told_nothing(home: Path) -> None:
    settings = index_settings(environ(home, PIP_CONFIG_FILE=os.devnull))
    assert settings == IndexSettings()
    assert uv_arguments(settings) == []


def test_uvs_own_variables_win_over_pip(home: Path) -> None:
    env = environ(home, UV_DEFAULT_INDEX=INDEX, PIP_INDEX_URL="https://other.example.com/simple")
    settings = index_settings(env)
    assert (settings.source, settings.default_index) == ("uv", INDEX)
    assert uv_arguments(settings) == [], "uv reads them itself"


def test_all_of_uvs_variables_are_read(home: Path) -> None:
    env = environ(
        home,
        UV_INDEX="corp=https://corp.example.com/simple https://b.example.com/simple",
        UV_EXTRA_INDEX_URL="https://c.example.com/simple",
        UV_FIND_LINKS="https://links.example.com/a,wheels",
        UV_INDEX_CORP_USERNAME="me",
        UV_INDEX_CORP_PASSWORD="p@ss",
    )
    settings = index_settings(env)
    assert settings.indexes == (
        "https://me:p%40ss@corp.example.com/simple",
        "https://b.example.com/simple",
        "https://c.example.com/simple",
    )
    assert settings.find_links == ("https://links.example.com/a", str(Path("wheels").absolute()))
    assert logins(settings, env) == {"corp.example.com": ("me", "p@ss")}


def test_a_uv_toml_wins_over_pip_and_one_without_indexes_does_not(home: Path) -> None:
    path = written(home / ".config" / "uv" / "uv.toml", "native-tls = true\n")
    env = environ(home, UV_NO_CONFIG="", PIP_INDEX_URL=INDEX)
    assert index_settings(env).source == "pip"
    written(
        path,
        '[[index]]\nname = "corp-x"\nurl = "https://corp.example.com/simple"\ndefault = true\n'
        '[[index]]\nurl = "https://b.example.com/simple"\n'
        '[pip]\nfind-links = ["/wheels"]\n',
    )
    settings = index_settings(env | {"UV_INDEX_CORP_X_PASSWORD": "token"})
    assert settings == IndexSettings(
        source="uv",
        default_index="https://:token@corp.example.com/simple",
        indexes=("https://b.example.com/simple",),
        find_links=("/wheels",),
    )
    assert index_settings(env | {"UV_NO_CONFIG": "1"}).source == "pip"
    assert index_settings(env | {"UV_CONFIG_FILE": str(home / "missing.toml")}).source == "pip"


def test_a_damaged_uv_toml_is_left_for_uv_to_tell(home: Path) -> None:
    written(home / ".config" / "uv" / "uv.toml", "[[index]\n")
    assert index_settings(environ(home, UV_NO_CONFIG="")).source == "none"


# pip


def test_pips_variables_are_read(home: Path) -> None:
    settings = index_settings(
        environ(
            home,
            PIP_INDEX_URL=INDEX,
            PIP_EXTRA_INDEX_URL="https://a.example.com/simple https://b.example.com/simple",
            PIP_FIND_LINKS="~/wheels https://links.example.com/page",
            PIP_TRUSTED_HOST="a.example.com",
            PIP_CONSTRAINT="/limits.txt",
        )
    )
    assert settings == IndexSettings(
        source="pip",
        default_index=INDEX,
        indexes=("https://a.example.com/simple", "https://b.example.com/simple"),
        find_links=(str(home / "wheels"), "https://links.example.com/page"),
        trusted_hosts=("a.example.com",),
        constraints=("/limits.txt",),
    )


def test_pips_files_are_read_later_ones_win_and_variables_win_over_all(home: Path) -> None:
    written(home / "xdg" / "pip" / "pip.conf", "[global]\nindex-url = https://site\nno-index = true\n")
    written(home / ".pip" / "pip.conf", "[global]\nfind-links = /legacy\n")
    written(home / ".config" / "pip" / "pip.conf", "[global]\nindex-url = https://user\n")
    env = environ(home)
    settings = index_settings(env)
    assert (settings.default_index, settings.find_links) == ("https://user", ("/legacy",))
    assert settings.no_index
    written(home / "venv" / "pip.conf", "[global]\nindex-url = https://venv\n")
    assert index_settings(env).default_index == "https://venv"
    written(home / "pip.conf", "[global]\nindex-url = https://named\n")
    assert index_settings(env).default_index == "https://named"
    assert index_settings(env).find_links == (), "a file that PIP_CONFIG_FILE names replaces the user's"
    assert index_settings(env | {"PIP_INDEX_URL": "https://variable"}).default_index == "https://variable"
    assert index_settings(env | {"PIP_CONFIG_FILE": os.devnull}) == IndexSettings()


def test_the_install_section_wins_over_global_and_others_do_not_count(home: Path) -> None:
    written(
        home / "pip.conf",
        "[install]\nindex_url = https://install\n[global]\nindex-url = https://global\n"
        "extra-index-url =\n    https://a\n    https://b\n[download]\nfind-links = /elsewhere\n",
    )
    settings = index_settings(environ(home))
    assert (settings.default_index, settings.indexes) == ("https://install", ("https://a", "https://b"))
    assert settings.find_links == ()


@pytest.mark.parametrize("text", ["no section\n", "[global\n", "[global]\nindex-url = a\nindex-url = b\n"])
def test_a_damaged_pip_file_counts_for_nothing(home: Path, text: str) -> None:
    written(home / "pip.conf", text)
    assert index_settings(environ(home)) == IndexSettings()


def test_what_pip_knows_is_handed_to_uv_without_credentials(home: Path) -> None:
    env = environ(
        home,
        PIP_INDEX_URL=INDEX,
        PIP_EXTRA_INDEX_URL="https://me:t%40ken@extra.example.com/simple",
        PIP_FIND_LINKS="/wheels",
        PIP_NO_INDEX="1",
        PIP_TRUSTED_HOST="index.example.com",
    )
    settings = index_settings(env)
    assert uv_arguments(settings) == [
        "--index-strategy=unsafe-best-match",
        "--default-index=trainpack-default=https://index.example.com/simple",
        "--index=trainpack-0=https://extra.example.com/simple",
        "--find-links=/wheels",
        "--no-index",
        "--allow-insecure-host=index.example.com",
    ]
    given = uv_environment(settings, env)
    assert given["UV_INDEX_TRAINPACK_DEFAULT_USERNAME"] == "user"
    assert given["UV_INDEX_TRAINPACK_DEFAULT_PASSWORD"] == "s3cret"
    assert given["UV_INDEX_TRAINPACK_0_PASSWORD"] == "t@ken"
    assert given["HOME"] == str(home)


def test_one_index_alone_is_not_merged_so_that_uv_tells_of_refused_credentials(home: Path) -> None:
    assert uv_arguments(index_settings(environ(home, PIP_INDEX_URL="https://a/simple"))) == [
        "--default-index=trainpack-default=https://a/simple"
    ]


def test_find_links_with_credentials_are_in_the_environment_only(home: Path) -> None:
    env = environ(home, PIP_FIND_LINKS="https://user:s3cret@links.example.com/a /wheels")
    settings = index_settings(env)
    assert uv_arguments(settings) == []
    given = uv_environment(settings, env)
    assert given["UV_FIND_LINKS"] == "https://user:s3cret@links.example.com/a,/wheels"


# Certificates


def test_the_bundle_is_the_one_that_the_user_names_else_the_systems(home: Path) -> None:
    named = [written(home / f"{number}.pem", "") for number in range(4)]
    env = environ(
        home,
        TRAINPACK_CA_BUNDLE=str(named[0]),
        SSL_CERT_FILE=str(named[1]),
        REQUESTS_CA_BUNDLE=str(named[2]),
        PIP_CERT=str(named[3]),
    )
    for variable, bundle in zip(
        ("TRAINPACK_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), named, strict=True
    ):
        assert ca_bundle(env) == bundle
        assert uv_environment(IndexSettings(), env)["SSL_CERT_FILE"] == str(bundle)
        env.pop(variable)
    assert ca_bundle(env) not in named


def test_a_cert_of_pips_file_is_used_and_a_missing_one_is_passed_over(home: Path) -> None:
    bundle = written(home / "corp.pem", "")
    written(home / "pip.conf", "[global]\ncert = ~/corp.pem\n".replace("~", str(home)))
    assert ca_bundle(environ(home, SSL_CERT_FILE=str(home / "missing.pem"))) == bundle


# Credentials


def test_a_netrc_holds_the_configured_hosts_and_no_others(home: Path) -> None:
    written(
        home / ".netrc",
        "machine extra.example.com login me password token\nmachine bank.example.com login me password 1\n",
    )
    env = environ(home, PIP_INDEX_URL=INDEX, PIP_EXTRA_INDEX_URL="https://extra.example.com/simple")
    text = netrc_text(index_settings(env), env)
    assert text is not None
    hosts = netrc.netrc(str(written(home / "given", text))).hosts
    assert hosts == {
        "index.example.com": ("user", "", "s3cret"),
        "extra.example.com": ("me", "", "token"),
    }


def test_credentials_in_an_address_win_over_the_users_netrc(home: Path) -> None:
    named = written(home / "my.netrc", "machine index.example.com login other password other\n")
    env = environ(home, PIP_INDEX_URL=INDEX, NETRC=str(named))
    assert logins(index_settings(env), env) == {"index.example.com": ("user", "s3cret")}


@pytest.mark.parametrize("password", ["a b", 'say "so"', "back\\slash", "#hash", "t%40k", "", "é"])
def test_a_netrc_keeps_any_password(home: Path, password: str) -> None:
    env = environ(home, UV_INDEX="corp=https://index.example.com/simple", UV_INDEX_CORP_USERNAME="me")
    env["UV_INDEX_CORP_PASSWORD"] = password
    text = netrc_text(index_settings(env), env)
    assert text is not None
    hosts = netrc.netrc(str(written(home / "given", text))).hosts
    assert hosts["index.example.com"] == ("me", "", password)


def test_without_credentials_there_is_no_netrc(home: Path) -> None:
    env = environ(home, PIP_INDEX_URL="https://index.example.com/simple")
    assert netrc_text(index_settings(env), env) is None
    written(home / ".netrc", "passwords\n")
    assert netrc_text(index_settings(env), env) is None, "a damaged netrc is none"


def test_settings_can_be_printed(home: Path) -> None:
    settings = index_settings(environ(home, PIP_INDEX_URL=INDEX, PIP_FIND_LINKS=INDEX))
    for text in (str(settings), repr(settings), f"{settings}", repr([settings])):
        assert "s3cret" not in text
        assert "index.example.com" in text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("https://user:s3cret@host/simple", "https://***@host/simple"),
        ("https://s3cret@host", "https://***@host"),
        ("at https://u:a@b@host/x and git+ssh://git:p@h/y", "at https://***@host/x and git+ssh://***@h/y"),
        ("https://host/@scope/package", "https://host/@scope/package"),
        ("mail me@example.com", "mail me@example.com"),
        ("https://host:8080/a https://u:s3cret@other/", "https://host:8080/a https://***@other/"),
    ],
)
def test_redact_hides_the_credentials_of_every_address(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        ("https://user:p@ss@host:8080/simple?a=b", "https://host:8080/simple?a=b"),
        ("https://host/simple", "https://host/simple"),
        ("file:///wheels/a@b.whl", "file:///wheels/a@b.whl"),
    ],
)
def test_an_address_without_credentials_is_the_same_place(address: str, bare: str) -> None:
    assert without_credentials(address) == bare
