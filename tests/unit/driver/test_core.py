"""The driver's core against scripted servers: who is found, and what is sent again."""

import pytest
from tests.unit.driver.world import Gone, Server, Silent, World, done

from primacy import errors
from primacy.driver.exceptions import (
    DataError,
    IntegrityError,
    InterfaceError,
    OutcomeUnknown,
    ProgrammingError,
    StatementRefused,
    Unavailable,
)
from primacy.driver.session import Results, Session
from primacy.engines.sqlite.protocol import (
    Access,
    Branch,
    Done,
    End,
    Failure,
    Fetch,
    FromClient,
    FromServer,
    Run,
    ServerRole,
)
from primacy.engines.sqlite.tokens import key_at

KEY = key_at(1_700_000_000_000, "order-1")
WRITE = "INSERT INTO t VALUES (1)"


def replica(name: str, leader: str = "") -> Server:
    return Server(name, role=ServerRole.REPLICA, leader=leader)


def not_primary(message: FromClient) -> list[FromServer]:
    assert isinstance(message, Run)
    return [Failure(message.number, Branch.NOT_PRIMARY, "demoted", "", leader="b:3307")]


def refused(message: FromClient) -> list[FromServer]:
    assert isinstance(message, Run)
    what = "UNIQUE constraint failed: t.a"
    return [Failure(message.number, Branch.REJECTED, what, "Change it.", 2067, "X")]


def execute(world: World, session: Session, sql: str = WRITE, *, key: str = "") -> Results:
    results = Results()
    world.run(session.execute(results, sql, (), key=key))
    return results


# ---- finding ----------------------------------------------------------------------------------


def test_the_first_host_that_is_the_primary_is_taken() -> None:
    world = World(Server("a"), Server("b"))
    session = world.session()
    world.run(session.core.open())
    assert session.core.greeting is not None
    assert session.core.greeting.node == "a"


def test_a_replica_says_who_leads_and_its_word_is_followed_even_beyond_the_list() -> None:
    world = World(replica("a", leader="c:3307"), Server("b", is_up=False))
    world.servers.update(World(Server("c")).servers)
    session = world.session()
    world.run(session.core.open())
    assert session.core.greeting is not None
    assert session.core.greeting.node == "c"
    assert world.now_s < 0.1


def test_a_named_leader_that_is_silent_is_left_for_the_one_host_that_is_known() -> None:
    a, b = replica("a", leader="b:3307"), Server("b", is_frozen=True)
    world = World(a, b)
    session = world.session(hosts="a")
    with pytest.raises(Unavailable, match="a is not the primary"):
        world.run(session.core.open())
    assert a.accepted_count > 3
    assert world.now_s <= 10


def test_hosts_are_tried_again_until_one_becomes_the_primary() -> None:
    a, b = replica("a"), Server("b", is_up=False)
    world = World(a, b)
    session = world.session(options="?connect_timeout_s=5")
    with pytest.raises(Unavailable, match=r"a:3307: a is not the primary; b:3307: refused"):
        world.run(session.core.open())
    assert 4 < world.now_s <= 5.1
    a.role = ServerRole.PRIMARY
    world.run(session.core.open())


def test_whoever_wants_a_replica_gets_one_and_else_the_primary() -> None:
    world = World(Server("a"), replica("b"))
    session = world.session(options="?target=replica")
    world.run(session.core.open())
    assert session.core.greeting is not None
    assert session.core.greeting.node == "b"
    alone = World(Server("a"))
    session = alone.session(options="?target=replica")
    alone.run(session.core.open())
    assert session.core.greeting is not None
    assert session.core.greeting.node == "a"


# ---- what is sent again -----------------------------------------------------------------------


def test_a_write_whose_answer_is_lost_is_not_sent_again() -> None:
    a = Server("a", answers=[Gone])
    world = World(a)
    session = world.session()
    with pytest.raises(OutcomeUnknown, match="Read what it would have changed") as caught:
        execute(world, session)
    assert isinstance(caught.value, errors.OutcomeUnknown)
    assert len(a.runs) == 1


@pytest.mark.parametrize(
    ("sql", "key", "level"),
    [("SELECT 1", "", None), (WRITE, KEY, None), (WRITE, "", "")],
    ids=["a read", "a write with a key", "a transaction's first request"],
)
def test_what_may_be_sent_twice_is_sent_again(sql: str, key: str, level: str | None) -> None:
    a = Server("a", answers=[Gone, Gone])
    world = World(a, replica("b"))
    session = world.session(isolation_level=level)
    world.run(session.execute(Results(), sql, (), key=key))
    assert [each.key for each in a.runs] == [key] * 3
    assert len({each.number for each in a.runs}) == 3


def test_silence_until_the_deadline_ends_a_read_and_leaves_a_write_in_doubt() -> None:
    world = World(Server("a", answers=[Silent, Silent, Silent]))
    session = world.session(options="?timeout_s=3")
    with pytest.raises(Unavailable, match="no answer came in time"):
        execute(world, session, "SELECT 1")
    with pytest.raises(OutcomeUnknown, match="no answer came in time"):
        execute(world, session)
    with pytest.raises(OutcomeUnknown, match="the same key"):
        execute(world, session, key=KEY)


def test_a_call_with_a_key_that_was_sent_is_in_doubt_whatever_comes_after_it() -> None:
    def busy(message: FromClient) -> list[FromServer]:
        assert isinstance(message, Run)
        return [Failure(message.number, Branch.UNAVAILABLE, "the doors are closed", "")]

    def vanished(message: FromClient) -> list[FromServer]:
        a.is_up = False
        raise Gone

    a = Server("a", answers=[Gone, busy, busy, Gone, busy, vanished])
    session = (world := World(a)).session()
    with pytest.raises(OutcomeUnknown, match=r"doors are closed.*the same key"):
        execute(world, session, key=KEY)
    with pytest.raises(Unavailable, match="doors are closed"):  # Never sent in vain: not applied.
        execute(world, session, key=KEY)
    with pytest.raises(Unavailable, match="doors are closed"):
        execute(world, session, "SELECT 1")
    with pytest.raises(OutcomeUnknown, match=r"no primary was found in time.*the same key"):
        execute(world, session, key=KEY)


def test_a_connection_that_died_while_idle_costs_nothing() -> None:
    a = Server("a")
    world = World(a)
    session = world.session()
    execute(world, session)
    world.close_by_server()
    execute(world, session)
    assert (len(a.runs), a.accepted_count) == (2, 2)


def test_a_demoted_server_is_left_for_the_one_that_it_names() -> None:
    a = Server("a", answers=[not_primary])
    b = Server("b")
    world = World(a, b)
    session = world.session()
    execute(world, session)
    assert (len(a.runs), len(b.runs)) == (1, 1)


def test_a_refusal_is_final_and_names_sqlites_code() -> None:
    a = Server("a", answers=[refused])
    world = World(a)
    session = world.session()
    with pytest.raises(IntegrityError, match="UNIQUE constraint failed") as caught:
        execute(world, session)
    assert caught.value.sqlite_errorcode == 2067
    assert isinstance(caught.value, errors.Rejected)
    execute(world, session)
    assert a.accepted_count == 1


# ---- transactions -----------------------------------------------------------------------------


def test_a_transaction_whose_connection_is_lost_was_rolled_back() -> None:
    a = Server("a")
    world = World(a)
    session = world.session(isolation_level="")
    execute(world, session)
    assert session.core.is_in_transaction
    a.answers = [Gone]
    with pytest.raises(Unavailable, match="from its beginning"):
        execute(world, session)
    assert not session.core.is_in_transaction
    execute(world, session)
    assert a.runs[-1].begin is Access.WRITE


def test_a_commit_whose_answer_is_lost_is_in_doubt() -> None:
    a = Server("a")
    world = World(a)
    session = world.session(isolation_level="")
    execute(world, session)
    a.answers = [Gone]
    with pytest.raises(OutcomeUnknown, match="COMMIT"):
        world.run(session.commit())


def test_a_commit_on_a_connection_that_had_died_was_never_sent() -> None:
    world = World(Server("a"))
    session = world.session(isolation_level="")
    execute(world, session)
    world.close_by_server()
    with pytest.raises(Unavailable, match="rolled back"):
        world.run(session.commit())


def test_a_rollback_needs_no_answer() -> None:
    a = Server("a")
    world = World(a)
    session = world.session(isolation_level="")
    execute(world, session)
    a.answers = [Gone]
    world.run(session.rollback())
    assert not session.core.is_in_transaction


def test_begin_and_commit_as_statements_are_obeyed() -> None:
    a = Server("a")
    world = World(a)
    session = world.session()
    execute(world, session, "BEGIN IMMEDIATE")
    execute(world, session)
    execute(world, session, "COMMIT;")
    assert [each.begin for each in a.runs] == [Access.WRITE, Access.NONE]
    assert isinstance(a.heard[-1], End)
    with pytest.raises(ProgrammingError, match="no transaction is active"):
        execute(world, session, "ROLLBACK")


def test_only_changes_of_rows_begin_a_transaction_by_themselves() -> None:
    a = Server("a")
    world = World(a)
    session = world.session(isolation_level="")
    for sql in ("SELECT 1", "CREATE TABLE t (a)", "PRAGMA user_version", WRITE):
        execute(world, session, sql)
    assert [each.begin for each in a.runs] == [Access.NONE] * 3 + [Access.WRITE]


def test_a_key_covers_a_transaction_of_its_own_only() -> None:
    world = World(Server("a"))
    session = world.session()
    with pytest.raises(ProgrammingError, match="not an idempotency key"):
        execute(world, session, key="order-1")
    execute(world, session, "BEGIN")
    with pytest.raises(ProgrammingError, match="of its own"):
        execute(world, session, key=KEY)


# ---- the rest ---------------------------------------------------------------------------------


def test_rows_come_in_pages_and_a_lost_connection_ends_them() -> None:
    def first(message: FromClient) -> list[FromServer]:
        assert isinstance(message, Run)
        return [Done(message.number, ["a"], [(1,)], 5, -1, 0, "", is_in_transaction=False)]

    def second(message: FromClient) -> list[FromServer]:
        assert isinstance(message, Fetch)
        assert message.cursor == 5
        return [Done(message.number, None, [(2,)], 5, -1, 0, "", is_in_transaction=False)]

    a = Server("a", answers=[first, second, Gone])
    world = World(a)
    session = world.session()
    results = execute(world, session, "SELECT a FROM t")
    assert world.run(session.row(results)) == (1,)
    assert world.run(session.row(results)) == (2,)
    with pytest.raises(Unavailable, match="Run the query again"):
        world.run(session.row(results))


def test_reads_carry_the_token_of_the_last_write() -> None:
    def committed(message: FromClient) -> list[FromServer]:
        assert isinstance(message, Run)
        return [done(message, token="a@3:17")]

    a = Server("a", answers=[committed])
    world = World(a)
    session = world.session()
    execute(world, session)
    execute(world, session, "SELECT 1")
    assert [each.after for each in a.runs] == ["", "a@3:17"]
    session.core.see("b@4:2")
    execute(world, session, "SELECT 1")
    assert a.runs[-1].after == "b@4:2"
    with pytest.raises(ProgrammingError, match="not a token"):
        session.core.see("b@4")


def test_an_answer_to_another_request_is_not_taken_for_this_ones() -> None:
    def stale(message: FromClient) -> list[FromServer]:
        assert isinstance(message, Run)
        return [Done(message.number - 1, None, [], 0, 1, 1, "", is_in_transaction=False)]

    world = World(Server("a", answers=[stale]))
    with pytest.raises(OutcomeUnknown, match="out of turn"):
        execute(world, world.session())


def test_an_error_without_a_known_code_is_refused_as_written() -> None:
    def syntax(message: FromClient) -> list[FromServer]:
        assert isinstance(message, Run)
        return [Failure(message.number, Branch.REJECTED, 'near "x": syntax error', "", 1, "E")]

    world = World(Server("a", answers=[syntax]))
    with pytest.raises(StatementRefused, match="syntax error"):
        execute(world, world.session())


def test_what_is_too_large_is_not_sent_and_harms_nothing() -> None:
    a = Server("a")
    world = World(a)
    session = world.session()
    with pytest.raises(DataError, match="exceeds the limit"):
        world.run(session.execute(Results(), "INSERT INTO t VALUES (?)", [b"x" * (17 << 20)]))
    rows = [()] * 100_001
    with pytest.raises(DataError, match="100001 rows of parameters"):
        world.run(session.execute_many(Results(), WRITE, rows))
    execute(world, session)
    assert (len(a.runs), a.accepted_count) == (1, 1)


def test_a_closed_connection_says_so() -> None:
    world = World(Server("a"))
    session = world.session()
    world.run(session.core.close())
    with pytest.raises(InterfaceError, match="closed"):
        execute(world, session)
