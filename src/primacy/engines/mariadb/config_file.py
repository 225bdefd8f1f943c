"""The server's option file: generated, never edited; each line that matters says why. Pure."""

from primacy.engines.mariadb.settings import MariaDbSettings

NEVER_MS = 18446744073709551615
"""The longest semi-synchronous timeout there is: 584 million years."""
RELAY_LOG_BYTES_MAX = 64 * 1024 * 1024
"""Applied relay logs are removed file by file: small files keep a salvage short."""
BINARY_LOG_BYTES_MAX = 256 * 1024 * 1024
DAY_S = 86400


def server_config(settings: MariaDbSettings) -> str:
    """The whole file."""
    sections = [_identity(settings), _log(settings), _replication(settings), _rest(settings)]
    sections.append([(name, text, "by configuration") for name, text in settings.further.items()])
    head = (
        "# Written by primacy at every start of the server. Changes made here are lost.\n"
        "# init_rpl_role is absent on purpose: it is decided at every start.\n[mariadbd]\n"
    )
    return head + "\n".join(_aligned(section) for section in sections)


def _identity(settings: MariaDbSettings) -> list[tuple[str, str, str]]:
    layout = settings.layout
    own = settings.peers[settings.node]
    return [
        ("datadir", str(layout.data), ""),
        ("socket", str(layout.socket), "the agent's own way in"),
        ("pid_file", str(layout.pid_file), ""),
        ("tmpdir", str(layout.temporary), "a server that starts deletes what others have there"),
        ("log_error", str(layout.server_log), ""),
        ("bind_address", settings.bind_host, ""),
        ("port", str(settings.port), "applications and replicas"),
        ("report_host", own.host, "what SHOW SLAVE HOSTS says"),
        ("report_port", str(own.port), ""),
        (
            "server_id",
            str(settings.server_id_of_start(0)),
            "in every GTID; each start gives its own",
        ),
        ("proxy_protocol_networks", ",".join(settings.proxy_networks), "the router on this host"),
        ("skip_name_resolve", "ON", "no DNS in the way of a login"),
    ]


def _log(settings: MariaDbSettings) -> list[tuple[str, str, str]]:
    return [
        ("gtid_domain_id", "0", "one primary, one domain: sequences order the log"),
        ("gtid_strict_mode", "ON", "without it a diverged server rejoins silently"),
        ("log_bin", "binlog", ""),
        ("log_slave_updates", "ON", "any replica can be promoted"),
        ("binlog_format", "ROW", "replicas cannot compute something else"),
        ("binlog_row_image", "FULL", "diverged rows can be saved and undone"),
        ("sync_binlog", "1", "a commit is on the disk before it is sent"),
        ("innodb_flush_log_at_trx_commit", "1", "and in the tables as well"),
        ("max_binlog_size", str(BINARY_LOG_BYTES_MAX), "the end of the log is found quickly"),
        ("binlog_expire_logs_seconds", str(settings.log_days * DAY_S), "the default is never"),
    ]


def _replication(settings: MariaDbSettings) -> list[tuple[str, str, str]]:
    del settings  # Equal on all nodes.
    return [
        ("read_only", "ON", "only the agent opens the doors"),
        ("skip_slave_start", "ON", "a thread started too early throws the relay log away"),
        ("relay_log", "relay", "a fixed name: survives a new host name"),
        ("relay_log_recovery", "OFF", "the relay log may hold the only copy of a commit"),
        ("sync_relay_log", "1", "an acknowledgement promises a disk"),
        ("max_relay_log_size", str(RELAY_LOG_BYTES_MAX), "a salvage reads little"),
        ("slave_net_timeout", "2", "a silent primary is noticed"),
        ("slave_parallel_threads", "4", "shorter catch-up; commits stay in order"),
        ("slave_parallel_mode", "optimistic", ""),
        ("slave_exec_mode", "STRICT", "a conflict stops the applier, never skips a row"),
        ("rpl_semi_sync_slave_enabled", "OFF", "only a recorded member acknowledges"),
        ("rpl_semi_sync_master_enabled", "OFF", "the agent switches it on"),
        ("rpl_semi_sync_master_wait_point", "AFTER_SYNC", "no row is seen before it is held"),
        ("rpl_semi_sync_master_timeout", str(NEVER_MS), "only the agent degrades, on record"),
        ("rpl_semi_sync_master_wait_no_slave", "ON", "no replica: wait, do not pretend"),
        ("rpl_semi_sync_slave_kill_conn_timeout", "1", "the least: a seal cuts it sooner"),
    ]


def _rest(settings: MariaDbSettings) -> list[tuple[str, str, str]]:
    return [
        ("innodb_buffer_pool_size", str(settings.buffer_pool_bytes), ""),
        ("innodb_buffer_pool_dump_at_shutdown", "OFF", "a stop is quick"),
        ("innodb_buffer_pool_load_at_startup", "OFF", ""),
        ("max_connections", str(settings.connections_max), ""),
        ("max_allowed_packet", "64M", "the same on all: a row that one takes, all take"),
        ("character_set_server", "utf8mb4", ""),
        ("performance_schema", "OFF", "memory and start time"),
    ]


def _aligned(lines: list[tuple[str, str, str]]) -> str:
    return "".join(
        f"{name:38} = {value}" + (f"  # {why}" if why else "") + "\n" for name, value, why in lines
    )
