"""Where Picsellia credentials come from, how they are kept, and that the token is never shown."""

from __future__ import annotations

import io
import json
import stat
import traceback
from pathlib import Path

import pytest
from picsellia_standin import Standin

from builder.cli.dispatch import run
from builder.errors import StoreError, TrainpackError, UsageError
from builder.host.credentials import (
    DEFAULT_HOST,
    credentials_file,
    forget_credentials,
    load_credentials,
    make_credentials,
    save_credentials,
)

TOKEN = "s3cr3t-0123456789"
ORGANIZATION = "1bbebafd-4bdc-481d-a479-b4526952c7c6"
VARIABLES = "api_token host organization_id organization_name".split()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment with a configuration folder of its own and no credentials."""
    return {"TRAINPACK_CONFIG": str(tmp_path / "config")}


@pytest.fixture
def stored(environ: dict[str, str]) -> Path:
    """The file of `login`, with a token for https://example.com."""
    made = make_credentials({"token": TOKEN, "host": "https://example.com"}, "the test")
    return save_credentials(made, environ)


@pytest.fixture
def home(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The process's own environment, without credentials; returns where `login` would keep them."""
    for name in (*VARIABLES, *(f"PICSELLIA_{name.upper()}" for name in VARIABLES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRAINPACK_CONFIG", environ["TRAINPACK_CONFIG"])
    return credentials_file(environ)


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_the_environment_alone_is_enough(environ: dict[str, str]) -> None:
    found = load_credentials(environ | {"api_token": TOKEN})
    assert found.token.get_secret_value() == TOKEN
    assert (found.host, found.organization_id, found.source) == (DEFAULT_HOST, None, "the environment")


def test_prefixed_variables_win_over_the_platforms_own(environ: dict[str, str]) -> None:
    found = load_credentials(
        environ
        | {"api_token": "other", "PICSELLIA_API_TOKEN": TOKEN}
        | {"host": "https://other.example.com", "PICSELLIA_HOST": "https://example.com/"}
        | {"organization_id": "", "PICSELLIA_ORGANIZATION_ID": ORGANIZATION}
        | {"organization_name": "other", "PICSELLIA_ORGANIZATION_NAME": "vision"}
    )
    assert found.token.get_secret_value() == TOKEN
    assert (found.host, found.organization_id, found.organization_name) == (
        "https://example.com",
        ORGANIZATION,
        "vision",
    )


def test_a_token_in_the_environment_never_goes_to_the_host_of_the_file(
    environ: dict[str, str], stored: Path
) -> None:
    found = load_credentials(environ | {"api_token": "other"})
    assert (found.token.get_secret_value(), found.host) == ("other", DEFAULT_HOST)


def test_the_file_is_used_without_a_token_in_the_environment(environ: dict[str, str], stored: Path) -> None:
    found = load_credentials(environ | {"host": "https://unrelated.example.com"})
    assert (found.token.get_secret_value(), found.host) == (TOKEN, "https://example.com")
    assert found.source == str(stored)


@pytest.mark.parametrize(
    "given",
    [
        {"PICSELLIA_HOST": "https://other.example.com"},
        {"PICSELLIA_ORGANIZATION_NAME": "vision"},
        {"PICSELLIA_ORGANIZATION_ID": ORGANIZATION},
    ],
)
def test_a_prefixed_variable_that_contradicts_the_file_is_refused(
    environ: dict[str, str], stored: Path, given: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(given))} is set without a token"):
        load_credentials(environ | given)


def test_a_prefixed_variable_that_agrees_with_the_file_is_fine(environ: dict[str, str], stored: Path) -> None:
    assert load_credentials(environ | {"PICSELLIA_HOST": "https://example.com/"}).source == str(stored)


def test_no_credentials_are_told_with_the_remedy(environ: dict[str, str]) -> None:
    with pytest.raises(StoreError, match="there are no Picsellia credentials") as caught:
        load_credentials(environ)
    assert "trainpack login" in str(caught.value.remedy)


def test_the_file_is_for_its_owner_alone(stored: Path) -> None:
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700


def test_every_value_survives_the_file(environ: dict[str, str]) -> None:
    made = make_credentials(
        {
            "token": TOKEN,
            "host": "http://127.0.0.1:8000",
            "organization_id": ORGANIZATION,
            "organization_name": "v",
        },
        "the test",
    )
    path = save_credentials(made, environ)
    assert load_credentials(environ) == made.model_copy(update={"source": str(path)})


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_can_open_is_refused(environ: dict[str, str], stored: Path, mode: int) -> None:
    stored.chmod(mode)
    with pytest.raises(StoreError, match=f"mode {mode:04o}, expected 0600") as caught:
        load_credentials(environ)
    assert f"chmod 600 {stored}" in str(caught.value.remedy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "https://example.com"}', '{"token": "a b"}'])
def test_a_damaged_file_is_told(environ: dict[str, str], stored: Path, text: str) -> None:
    stored.write_text(text)
    with pytest.raises((StoreError, UsageError)) as caught:
        load_credentials(environ)
    assert caught.value.place == str(stored)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    environ: dict[str, str], stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = stored.read_text()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainpackError, match="No space left on device"):
        save_credentials(make_credentials({"token": "new"}, "the test"), environ)
    assert stored.read_text() == before
    assert list(stored.parent.iterdir()) == [stored]


def test_forgetting_removes_the_file_once(environ: dict[str, str], stored: Path) -> None:
    assert forget_credentials(environ) == stored
    assert not stored.exists()
    assert forget_credentials(environ) is None


def test_the_token_is_in_no_printed_form() -> None:
    made = make_credentials({"token": TOKEN}, "the test")
    assert TOKEN not in f"{made} {made!r} {made.model_dump()} {made.model_dump_json()}"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"token": f"{TOKEN}\nX-Other: 1"}, "token"),
        ({"token": f"{TOKEN} "}, "token"),
        ({"token": f"{TOKEN}é"}, "token"),
        ({"token": TOKEN, "host": "example.com"}, "host"),
        ({"token": TOKEN, "host": "https://example.com/api"}, "host"),
        ({"token": TOKEN, "host": f"https://ada:{TOKEN}@example.com"}, "host"),
        ({"token": TOKEN, "organization_id": "vision"}, "organization id"),
    ],
)
def test_a_malformed_value_is_named_and_no_secret_shown(values: dict[str, str], field: str) -> None:
    with pytest.raises(UsageError, match=f"the {field} is not valid") as caught:
        make_credentials(values, "the environment")
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_login_keeps_a_token_that_works(
    platform: Standin, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, f"{platform.token}\n")
    assert run(["login", "--token-stdin", "--host", platform.url, "--organization", "standin", "--json"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["source"] == str(home)
    assert platform.token not in printed.out + printed.err
    assert json.loads(home.read_text()) == {
        "token": platform.token,
        "host": platform.url,
        "organization_name": "standin",
    }


def test_login_asks_on_a_terminal_without_showing(
    platform: Standin, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: platform.token)
    assert run(["login", "--host", platform.url, "--organization", platform.organization_id]) == 0
    assert json.loads(home.read_text())["organization_id"] == platform.organization_id


def test_login_keeps_nothing_when_the_platform_refuses(
    platform: Standin, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, f"{TOKEN}\n")
    assert run(["login", "--token-stdin", "--host", platform.url]) == 1
    printed = capfd.readouterr()
    assert "refused the token" in printed.err
    assert TOKEN not in printed.out + printed.err
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (["--token-stdin"], "", "the token is empty"),
        (["--token-stdin"], "two words\n", "the token is not valid"),
        (["--token-stdin", "--host", "nowhere"], f"{TOKEN}\n", "the host is not valid"),
        ([], "", "there is no terminal"),
    ],
)
def test_login_refuses_wrong_usage_with_code_2(
    *,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
    message: str,
) -> None:
    give(monkeypatch, text)
    assert run(["login", *arguments]) == 2
    assert message in capfd.readouterr().err
    assert not home.exists()


def test_whoami_tells_who_where_and_by_which_credentials(
    platform: Standin, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PICSELLIA_API_TOKEN", platform.token)
    monkeypatch.setenv("PICSELLIA_HOST", platform.url)
    assert run(["whoami", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "user": "ada",
        "organization": "standin",
        "organization_id": platform.organization_id,
        "host": platform.url,
        "source": "the environment",
    }
    assert run(["whoami"]) == 0
    assert platform.token not in capfd.readouterr().out


def test_whoami_without_credentials_ends_with_1(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["whoami"]) == 1
    assert "trainpack login" in capfd.readouterr().err


def test_logout_removes_the_file_and_names_a_token_that_stays(
    stored: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("api_token", TOKEN)
    assert run(["logout", "--json"]) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out) == {"removed": str(stored)}
    assert "the token in api_token is still used" in printed.err
    assert not stored.exists()
    assert run(["logout"]) == 0
    assert "there were no stored credentials" in capfd.readouterr().out
