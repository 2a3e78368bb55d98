# Where letters go: to what a name led to when it was looked at, and never to where a machine's secrets are.
from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from controlplane.domain.webhooks import Outcome
from controlplane.webhook_post import HttpPoster
from tests.store.receivers import Receiver, certificate, receiver

METADATA = "169.254.169.254"
POST = HttpPoster(2.0)


class Names:
    """Name resolution as a test says; each answer is given once, the last one for ever. Other names are looked up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = socket.getaddrinfo
        self._answers: dict[str, list[list[str]]] = {}
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def __setitem__(self, name: str, answers: list[list[str]]) -> None:
        self._answers[name] = answers

    def _look_up(self, host: str, port: int, *args: object, **kwargs: object) -> list[object]:
        answers = self._answers.get(host)
        if answers is None:
            return list(self._real(host, port, *args, **kwargs))  # type: ignore[arg-type]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for address in addresses for found in self._real(address, port, type=socket.SOCK_STREAM)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    return Names(monkeypatch)


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def named(there: Receiver, name: str) -> str:
    return there.url.replace("127.0.0.1", name)


def refused(outcome: Outcome) -> bool:
    return outcome.status is None and "TRITONCTL_WEBHOOKS__LINK_LOCAL" in str(outcome.error)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("host", [METADATA, "2852039166", "[::ffff:169.254.169.254]"])
def test_an_address_of_a_metadata_service_is_refused_when_a_letter_is_sent(host: str) -> None:
    assert refused(POST(f"http://{host}/latest", {}, b"{}"))


@pytest.mark.parametrize("addresses", [[METADATA], ["127.0.0.1", METADATA], ["fd00:ec2::254"]])
def test_a_name_that_leads_there_is_refused_and_nothing_is_sent(
    names: Names, there: Receiver, addresses: list[str]
) -> None:
    names["metadata.example"] = [addresses]
    assert refused(POST(named(there, "metadata.example"), {}, b"{}"))
    assert there.letters == []


def test_a_name_that_changes_after_it_was_looked_at_leads_nowhere_else(names: Names, there: Receiver) -> None:
    names["changing.example"] = [["127.0.0.1"], [METADATA]]
    assert POST(named(there, "changing.example"), {}, b"{}") == Outcome(204)
    port = urlsplit(there.url).port
    assert there.wait(1)[0].headers["host"] == f"changing.example:{port}"
    assert refused(POST(named(there, "changing.example"), {}, b"{}"))
    assert len(there.letters) == 1


def test_where_it_is_allowed_nothing_is_refused(names: Names) -> None:
    names["metadata.example"] = [[METADATA]]
    outcome = HttpPoster(0.5, link_local=True)("http://metadata.example:1/", {}, b"{}")
    assert not refused(outcome)


def test_a_redirection_is_an_answer_and_is_not_followed(there: Receiver) -> None:
    there.answers = [302, 307]
    assert [POST(there.url, {}, b"{}") for _ in range(3)] == [Outcome(302), Outcome(307), Outcome(204)]
    assert len(there.letters) == 3


def test_a_host_with_several_addresses_is_tried_at_each(names: Names, there: Receiver) -> None:
    names["several.example"] = [["127.0.0.2", "127.0.0.1"]]  # the receiver listens at the second only
    assert POST(named(there, "several.example"), {}, b"{}") == Outcome(204)


def test_a_certificate_is_asked_for_by_the_hosts_name_and_not_by_its_address(
    names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    names["other.example"] = [["127.0.0.1"]]
    with receiver(tls) as there:
        assert HttpPoster()(there.url, {}, b"{}") == Outcome(204)
        wrong = HttpPoster()(named(there, "other.example"), {}, b"{}")
        assert there.wait(1)
        assert len(there.letters) == 1
    assert "other.example" in str(wrong.error)


def test_through_a_proxy_it_is_the_proxy_that_looks_names_up(
    names: Names, there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["metadata.example"] = [[METADATA]]
    monkeypatch.setenv("http_proxy", there.url)
    assert POST("http://metadata.example/letters", {}, b"{}") == Outcome(204)
    assert there.wait(1)[0].path == "http://metadata.example/letters"
    monkeypatch.setenv("no_proxy", "metadata.example")
    assert refused(POST("http://metadata.example/letters", {}, b"{}"))


def test_a_name_that_nobody_knows_is_a_failure_with_its_reason(names: Names) -> None:
    names["gone.example"] = [["no address"]]
    outcome = POST("http://gone.example/", {}, b"{}")
    assert outcome.status is None
    assert str(outcome.error).startswith("gaierror: ")
