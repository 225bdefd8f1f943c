"""Relay logs that were cut in the middle of a transaction: what a client may be given of them."""

from primacy.engines.mariadb.orphans import Orphans
from primacy.engines.mariadb.scanning import Scan

HEAD = """\
DELIMITER /*!*/;
# at 4
#261125 22:04:21 server id 3  end_log_pos 256 CRC32 0xd7 \tStart: binlog v 4, server v 10.11
BINLOG '
ZVsHaw+OlpgA
'/*!*/;
# at 256
#700101  0:00:00 server id 3  end_log_pos 0 CRC32 0x73 \tRotate to binlog.000001  pos: 4
# at 300
#261125 22:01:19 server id 3  end_log_pos 285 CRC32 0x83 \tGtid list [0-3-6]
"""
REST = """\
# at 708
#261125 22:04:18 server id 3  end_log_pos 34 CRC32 0x72 \tTable_map: `shop`.`t` mapped to number 18
# at 770
#261125 22:04:18 server id 3  end_log_pos 87 CRC32 0x0b \tWrite_rows: table id 18 flags: STMT_END_F

BINLOG '
YlsHaxOBw8kB
'/*!*/;
### INSERT INTO `shop`.`t`
### SET
###   @1=32985
# Number of rows: 1
# at 823
#261125 22:04:18 server id 3  end_log_pos 18 CRC32 0xd9 \tXid = 44689
COMMIT/*!*/;
"""
BEGINNING = """\
# at 391070
#261125 22:04:26 server id 3  end_log_pos 76 CRC32 0x52 \tGTID 0-3-8 trans
/*M!100001 SET @@session.gtid_seq_no=8*//*!*/;
START TRANSACTION
/*!*/;
"""
DDL = """\
# at 500
#261125 22:04:26 server id 3  end_log_pos 76 CRC32 0x52 \tGTID 0-3-9 ddl
/*M!100001 SET @@session.gtid_seq_no=9*//*!*/;
# at 540
#261125 22:04:26 server id 3  end_log_pos 99 CRC32 0x52 \tQuery\tthread_id=5\texec_time=0
CREATE TABLE t2 (id INT)
/*!*/;
"""
STOP = """\
# at 391112
#261125 22:04:26 server id 1  end_log_pos 35 CRC32 0x8a \tStop
DELIMITER ;
"""
END = """\
DELIMITER ;
# End of log file
ROLLBACK /* added by mysqlbinlog */;
/*!50530 SET @@SESSION.PSEUDO_SLAVE_MODE=0*/;
"""


def passed(*parts: str) -> str:
    orphans = Orphans()
    return "".join(
        kept.decode() + "\n"
        for line in "".join(parts).splitlines()
        for kept in orphans.passes(line.encode())
    )


def sequences(*parts: str) -> list[int]:
    scan = Scan()
    for line in "".join(parts).splitlines():
        scan.feed(line.encode())
    return [each.gtid.sequence for each in scan.changes]


def test_the_rest_of_a_transaction_that_was_left_out_is_left_out() -> None:
    """As a replica stopped it: it duplicated a row, and would have logged it under a new GTID."""
    assert passed(HEAD, REST, END) == HEAD + END


def test_whole_transactions_pass_as_they_are() -> None:
    whole = HEAD + BEGINNING + REST + DDL + BEGINNING + REST + END
    assert passed(whole) == whole


def test_a_transaction_that_goes_on_in_the_next_file_passes_whole() -> None:
    both = HEAD + BEGINNING + STOP + HEAD + REST + END
    assert passed(both) == both


def test_after_a_statement_that_stands_alone_a_rest_is_left_out() -> None:
    assert passed(HEAD, DDL, STOP, HEAD, REST, BEGINNING, REST, END) == (
        HEAD + DDL + STOP + HEAD + BEGINNING + REST + END
    )


def test_a_beginning_at_the_end_is_no_transaction() -> None:
    """The program adds a ROLLBACK of its own: that is not an end that the log has."""
    assert sequences(HEAD, REST, BEGINNING, STOP, HEAD, END) == []
    assert sequences(HEAD, BEGINNING, STOP, HEAD, REST, END) == [8]
    assert sequences(HEAD, REST, DDL, END) == [9]
