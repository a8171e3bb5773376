"""What is said where no Ray cluster can be reached; no cluster is needed for it."""

import socket
from contextlib import closing
from types import SimpleNamespace

import pytest
from helpers_fleet import wait_for

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[cluster]'")

from mico_competition.cli import main  # noqa: E402
from mico_competition.fleets.ray import link as ray_link  # noqa: E402
from mico_competition.fleets.ray.link import Watch, checked_address, connected  # noqa: E402


def unused_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def test_an_address_where_nothing_listens_is_a_sentence(tmp_path, capsys):
    address = f"127.0.0.1:{unused_port()}"
    flags = ["digits_inf", "--models", "0-3", "--out", str(tmp_path), "--ray", address]
    assert main(["fleet", *flags]) == 1
    said = capsys.readouterr().err
    assert "mico: There is no Ray cluster at " in said and address.partition(":")[2] in said
    assert "ray start --head" in said and said.count("\n") == 1
    assert not ray.is_initialized()


def test_auto_without_a_cluster_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    found = lambda: set()  # noqa: E731
    found.cache_clear = lambda: None
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", found)
    with pytest.raises(ValueError, match="no Ray cluster at auto"), connected(ray, "auto"):
        pass


@pytest.mark.parametrize("address", ["", "nonsense", "host", "host:", "a b:1", "host:1234567"])
def test_an_address_has_host_and_port(address):
    with pytest.raises(ValueError, match="Expected --ray auto or --ray HOST:PORT"):
        checked_address(address)


def test_rays_client_is_refused_with_the_way_to_do_it():
    with pytest.raises(ValueError, match="runs on a node of the cluster"):
        checked_address("ray://head:10001")
    assert checked_address("auto") == "auto" and checked_address("[::1]:6379") == "[::1]:6379"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Version mismatch: The cluster\n was started"), "runs other versions"),
        (ray.exceptions.AuthenticationError("No token"), "requires a token"),
        (
            ConnectionError("It is\nfar away."),
            "at h:1 does not accept this process (It is far away): check",
        ),
    ],
)
def test_refusals_are_one_line_with_the_mend(monkeypatch, error, said):
    def init(**_):
        raise error

    stub = SimpleNamespace(init=init, shutdown=lambda: None, is_initialized=lambda: False)
    monkeypatch.setattr(ray_link, "_probe_head", lambda address: None)
    with pytest.raises(ValueError) as refused, connected(stub, "h:1"):
        pass
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_process_has_one_connection():
    stub = SimpleNamespace(is_initialized=lambda: True)
    with pytest.raises(ValueError, match="ray.shutdown"), connected(stub, "h:1"):
        pass


def test_a_head_that_does_not_answer_is_gone_after_a_while(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(ray_link, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(ray_link, "LOOK_SECONDS", 0.01)
    answers = [[{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": False, "Resources": {}}]]

    def nodes():
        if answers:
            return answers.pop()
        raise ConnectionError

    with Watch(SimpleNamespace(nodes=nodes)) as watch:
        assert watch.resources() == [{"CPU": 4.0}] and not watch.gone
        clock[0] = ray_link.GONE_SECONDS
        assert not watch.gone
        clock[0] += 1.0
        assert watch.gone and watch.resources() == [{"CPU": 4.0}]
        answers.append([])
        wait_for(lambda: not watch.gone)
        assert watch.resources() == []


def test_without_ray_it_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    flags = ["digits_inf", "--models", "0", "--out", str(tmp_path), "--ray", "auto"]
    assert main(["fleet", *flags]) == 1
    assert "pip install -e '.[cluster]'" in capsys.readouterr().err
