"""The rules between keys, and what is allowed and will surprise somebody one day."""

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path

from primacy.cluster.policy import layout_note
from primacy.config.problems import Problem
from primacy.config.sections import Config
from primacy.engines.api import Capabilities

ENGINES: Mapping[str, Capabilities] = {
    "mariadb": Capabilities(
        name="mariadb",
        acks=frozenset({"0", "1"}),
        ack_on=frozenset({"received"}),
        alternative="sqlite (planned; not in this version)",
    ),
}
"""What each engine of this version keeps. Everything else is refused here."""

ENGINES_PLANNED = ("sqlite", "postgresql")

OWNED_SETTINGS = frozenset(
    """
    bind_address binlog_format binlog_row_image datadir gtid_domain_id gtid_strict_mode
    init_rpl_role innodb_buffer_pool_size innodb_flush_log_at_trx_commit log_bin
    log_slave_updates pid_file port proxy_protocol_networks read_only relay_log report_host
    report_port server_id skip_slave_start slave_net_timeout socket sync_binlog sync_relay_log user
    """.split()  # noqa: SIM905 - a list of words is easier to read than 25 quoted lines.
)
"""Server variables that safety rests on, or that other keys set. All `rpl_semi_sync_*` are, too."""


def cross_problems(config: Config) -> Iterator[Problem]:
    yield from _engine_problems(config)
    yield from _address_problems(config)
    yield from _node_problems(config)
    yield from _setting_problems(config)


def _engine_problems(config: Config) -> Iterator[Problem]:
    name, acks, ack_on = config.cluster.engine, config.durability.acks, config.durability.ack_on
    engine = ENGINES.get(name)
    if engine is None:
        planned = " It is planned, and not in this version." if name in ENGINES_PLANNED else ""
        rule = f"this version has: {', '.join(ENGINES)}.{planned}"
        yield Problem("cluster.engine", repr(name), rule)
        return
    if str(acks) not in engine.acks:
        kept = " or ".join(sorted(engine.acks))
        rule = f"{name} keeps {kept}; for any number: {engine.alternative}"
        yield Problem("durability.acks", repr(acks), rule)
    elif acks == 1 and len(config.data_nodes) == 1:
        yield Problem("durability.acks", "1", "one data node has no replica that could acknowledge")
    if ack_on not in engine.ack_on:
        kept = " or ".join(sorted(engine.ack_on))
        rule = f"{name} keeps {kept}; for others: {engine.alternative}"
        yield Problem("durability.ack_on", repr(ack_on), rule)


def _address_problems(config: Config) -> Iterator[Problem]:
    taken: dict[tuple[str, int], str] = {}
    for name in config.members:
        node = config.nodes[name]
        host = "127.0.0.1" if node.host == "localhost" else node.host.lower()
        for key, port in node.ports().items():
            full = f"nodes.{name}.{key}"
            other = taken.setdefault((host, port), full)
            if other != full:
                yield Problem(full, str(port), f"{node.host}:{port} is {other} already")
    beyond = [str(name) for name in config.members if not is_loopback(config.nodes[name].host)]
    if config.api.enabled and config.api.listen and not is_loopback(config.api.listen):
        beyond.append(f"api.listen {config.api.listen}")
    if beyond and not config.cluster.insecure:
        rule = (
            f"{', '.join(beyond)} would listen beyond loopback, and TLS is not in this version."
            " On a network that you trust, set insecure = true"
        )
        yield Problem("cluster.insecure", "false", rule)


def _node_problems(config: Config) -> Iterator[Problem]:
    for name in config.members:
        if not all(each.isalnum() or each == "-" for each in name) or not name[:1].isalpha():
            rule = "a node's name is letters, digits and hyphens, a letter first"
            yield Problem(f"nodes.{name}", "", rule)
        elif len(name) > 32 or not name.isascii() or name != name.lower():
            yield Problem(f"nodes.{name}", "", "a node's name is lower-case ASCII, at most 32 long")
    if not config.data_nodes:
        yield Problem("nodes", "", "no node has a database: every one is a witness")
    elif all(config.nodes[name].never_promote for name in config.data_nodes):
        yield Problem("nodes", "", "every data node says never_promote: nobody could be primary")
    yield from _site_problems(config)
    taken: dict[tuple[str, Path], str] = {}
    for name in config.members:
        place = config.state_dir(name)
        other = taken.setdefault((config.nodes[name].host, place), name)
        if other != name:
            rule = f"{other} on the same host has the same directory"
            yield Problem(f"nodes.{name}.state_dir", repr(str(place)), rule)


def _site_problems(config: Config) -> Iterator[Problem]:
    preferred = config.cluster.preferred_site
    if config.cluster.return_to_preferred and not preferred:
        yield Problem("cluster.return_to_preferred", "true", "needs a preferred_site")
    if preferred and not config.preferred_nodes:
        able = [name for name in config.data_nodes if not config.nodes[name].never_promote]
        known = sorted({config.nodes[name].site for name in able} - {""})
        rule = f"no node that may be primary has this site; sites: {', '.join(known) or 'none'}"
        yield Problem("cluster.preferred_site", repr(preferred), rule)


def _setting_problems(config: Config) -> Iterator[Problem]:
    for key, value in config.mariadb.settings.items():
        name = key.replace("-", "_").removeprefix("loose_")
        if name in OWNED_SETTINGS or name.startswith("rpl_semi_sync_"):
            rule = "primacy sets this one itself: what it promises rests on it"
            yield Problem(f"mariadb.settings.{key}", repr(value), rule)
        elif not name.replace("_", "").isalnum() or "\n" in str(value):
            yield Problem(f"mariadb.settings.{key}", repr(value), "not the name of a variable")


def warnings(config: Config) -> list[str]:
    """What is allowed and will surprise somebody one day."""
    said: list[str] = []
    data, voters = len(config.data_nodes), len(config.members)
    is_strict = config.durability.acks != 0 and config.durability.on_timeout == "block"
    if voters < 3:
        said.append(
            f"{voters} node(s): nothing survives the loss of one. Use three, or two and a witness."
        )
    elif voters % 2 == 0:
        said.append(
            f"{voters} voters tolerate no more losses than {voters - 1}: use an odd number."
        )
    acks = 0 if config.durability.acks == 0 else 1  # Of two nodes there is one replica.
    if note := layout_note(data, acks=acks, on_timeout=config.durability.on_timeout):
        said.append(f"{note}.")
    able = sum(not config.nodes[name].never_promote for name in config.data_nodes)
    if data > 2 and able == 2 and is_strict:
        said.append(
            "two nodes may be primary, and what a never_promote node holds does not count: while"
            " one of the two is down, the other's writes are blocked."
        )
    if config.durability.acks == 0:
        said.append(
            "acks = 0: a failover may lose acknowledged writes. They are counted and saved."
        )
    if config.api.enabled and not config.api.token_file:
        open_at = sorted({name for name in config.members if not _is_api_on_loopback(config, name)})
        if open_at:
            said.append(
                f"no api.token_file: over HTTP, {', '.join(open_at)} answer questions and refuse"
                " every request that changes something."
            )
    if any(not is_loopback(node.host) for node in config.nodes.values()):
        said.append(
            "insecure = true: traffic between hosts is not encrypted yet. Use a private LAN."
        )
    return said


def _is_api_on_loopback(config: Config, name: str) -> bool:
    return is_loopback(config.api_door(name).host)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
