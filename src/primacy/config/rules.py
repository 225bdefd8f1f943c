"""The rules between keys, and what is allowed and will surprise somebody one day."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from primacy.cluster.policy import layout_note
from primacy.config.engines import ENGINE_KEYS, ENGINES, ENGINES_PLANNED, foreign_doors
from primacy.config.problems import Problem
from primacy.config.sections import Config

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
    why = engine.acks_problem(acks, replica_count=len(config.data_nodes) - 1)
    if why and config.data_nodes:
        yield Problem("durability.acks", repr(acks), why)
    if ack_on not in engine.ack_on:
        kept = " or ".join(sorted(engine.ack_on))
        rule = f"{name} keeps {kept}; for others: {engine.alternative}"
        yield Problem("durability.ack_on", repr(ack_on), rule)
    yield from _foreign_problems(config)


def _foreign_problems(config: Config) -> Iterator[Problem]:
    """What another engine would understand: whoever wrote it expects that it does something."""
    engine = config.cluster.engine
    for keys in ENGINE_KEYS.values():
        name = keys.section
        if name != ENGINE_KEYS[engine].section and name in config.model_fields_set:
            rule = f"of engine {name}, and cluster.engine is {engine!r}: remove the section"
            yield Problem(name, "", rule)
    for node in config.members:
        for key in sorted(foreign_doors(engine) & config.nodes[node].model_fields_set):
            port = getattr(config.nodes[node], key)
            yield Problem(f"nodes.{node}.{key}", str(port), f"{engine} has no such door: remove it")


def _address_problems(config: Config) -> Iterator[Problem]:
    taken: dict[tuple[str, int], str] = {}
    for name in config.members:
        node = config.nodes[name]
        host = "127.0.0.1" if node.host == "localhost" else node.host.lower()
        for key, port in config.ports(name).items():
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
    yield from _limit_problems(config)
    for key, value in config.mariadb.settings.items():
        name = key.replace("-", "_").removeprefix("loose_")
        if name in OWNED_SETTINGS or name.startswith("rpl_semi_sync_"):
            rule = "primacy sets this one itself: what it promises rests on it"
            yield Problem(f"mariadb.settings.{key}", repr(value), rule)
        elif not name.replace("_", "").isalnum() or "\n" in str(value):
            yield Problem(f"mariadb.settings.{key}", repr(value), "not the name of a variable")


def _limit_problems(config: Config) -> Iterator[Problem]:
    sqlite = config.sqlite
    for kind in ("transaction", "read"):
        idle_s, total_s = getattr(sqlite, f"{kind}_idle_s"), getattr(sqlite, f"{kind}_total_s")
        if idle_s > total_s:
            rule = f"more than sqlite.{kind}_total_s, {total_s}: it would never be reached"
            yield Problem(f"sqlite.{kind}_idle_s", str(idle_s), rule)


def warnings(config: Config) -> list[str]:
    """What is allowed and will surprise somebody one day."""
    voters = len(config.members)
    said: list[str] = []
    if voters < 3:
        said.append(
            f"{voters} node(s): nothing survives the loss of one. Use three, or two and a witness."
        )
    elif voters % 2 == 0:
        said.append(
            f"{voters} voters tolerate no more losses than {voters - 1}: use an odd number."
        )
    return [*said, *_durability_warnings(config), *_door_warnings(config)]


def _durability_warnings(config: Config) -> Iterator[str]:
    data, acks = len(config.data_nodes), config.acks
    is_strict = acks != 0 and config.durability.on_timeout == "block"
    if note := layout_note(data, acks=acks, on_timeout=config.durability.on_timeout):
        yield f"{note}."
    if is_strict and data > 2 and acks == data - 1:
        yield (
            f"acks = {acks} of {data - 1} replicas: while any one of them is down, writes are"
            " blocked."
        )
    able = sum(not config.nodes[name].never_promote for name in config.data_nodes)
    if is_strict and data > able == acks + 1:
        number = "two" if able == 2 else able
        yield (
            f"{number} nodes may be primary, and what a never_promote node holds does not count:"
            f" while one of the {number} is down, the others' writes are blocked."
        )
    if acks == 0:
        yield "acks = 0: a failover may lose acknowledged writes. They are counted and saved."


def _door_warnings(config: Config) -> Iterator[str]:
    users_key = ENGINE_KEYS[config.cluster.engine].users_key
    open_at = [name for name in config.data_nodes if not is_loopback(config.nodes[name].host)]
    if users_key and open_at and config.users_path is None:
        where = ", ".join(open_at)
        yield f"no {users_key}: whoever reaches a door of {where} reads and writes everything."
    if config.api.enabled and not config.api.token_file:
        asked_at = sorted(name for name in config.members if not _is_api_on_loopback(config, name))
        if asked_at:
            yield (
                f"no api.token_file: over HTTP, {', '.join(asked_at)} answer questions and refuse"
                " every request that changes something."
            )
    if any(not is_loopback(node.host) for node in config.nodes.values()):
        yield "insecure = true: traffic between hosts is not encrypted yet. Use a private LAN."


def _is_api_on_loopback(config: Config, name: str) -> bool:
    return is_loopback(config.api_door(name).host)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
