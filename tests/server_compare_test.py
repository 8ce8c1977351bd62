#!/usr/bin/env python3
"""Asks a real redis-server and ours the same things, over RESP2 and RESP3, and compares replies byte for byte, types
included. Each case is a list of requests on one fresh connection and empty databases; what Redis answers is the expectation.

    server_compare_test.py hosted|vm|HOST:PORT|MEMORY_SERVER

A request may carry a mark that says how its replies are compared:
  near       integers within 2,000 of each other (times)
  unordered  arrays in any order
  shape      the wire type only
  ignore     not at all (deliberate differences; each is listed in docs/redis.md)
"""
import sys

from client_support import Connection, RedisServer, Reply, server_from_argument

BIG = "9223372036854775807"
SMALL = "-9223372036854775808"


class Marked(tuple):
    def __new__(cls, mark, *args):
        made = super().__new__(cls, args)
        made.mark = mark
        return made


def near(*args): return Marked("near", *args)
def unordered(*args): return Marked("unordered", *args)
def shape(*args): return Marked("shape", *args)
def ignore(*args): return Marked("ignore", *args)


def words(text):
    """One request a line, blanks separate; '' is an empty argument."""
    return [tuple("" if word == "''" else word for word in line.split()) for line in text.strip().splitlines()]


CASES = {
    "ping and echo": words("""
        PING
        PING hello
        ping a b
        ECHO hi
        ECHO
        ECHO a b
        PiNg
        QUIT"""),
    "unknown": words("""
        FOO
        foo bar
        FOO bar baz ''
        GETT a b c d e f g h
        CONFIG NOPE
        CLIENT nope x
        OBJECT what key
        COMMAND what
        CLIENT
        CONFIG
        OBJECT
        MEMORY nope""") + [("x" * 200, "y" * 200, "z"), ("bad\r\nname", "a\r\nb"), ("FOO", b"a\x00b", "c")],
    "arity": [(name,) for name in """get set setnx setex psetex getset getdel getex mget mset msetnx incr decr incrby decrby
        incrbyfloat append strlen getrange substr setrange del unlink exists type touch rename renamenx copy keys scan expire
        pexpire expireat pexpireat ttl pttl expiretime pexpiretime persist watch select auth wait""".split()]
    + words("""
        get a b
        set a
        incr a b
        strlen a b
        mset a
        mset a 1 b
        msetnx a 1 b
        randomkey x
        dbsize x
        multi x
        exec x
        discard x
        unwatch x
        time x
        lastsave x
        config get
        config set maxclients
        config set a b c
        client setname
        client id x
        client getname x
        client kill
        client reply
        object encoding
        memory usage
        rename a
        renamenx a
        copy a
        expire a
        setex a 10
        getrange a 1
        flushdb x
        flushall x y
        command count x
        command getkeys
        wait 0"""),
    "set and get": words("""
        GET a
        SET a 1
        GET a
        SET a ''
        GET a
        SET '' empty
        GET ''
        SET a 1 NX
        SET a 2 XX
        SET nope 2 XX
        GET a
        SET a 3 GET
        SET n 3 GET
        SET n 4 NX GET
        SET m 4 NX GET
        SET m 5 XX GET
        SET q 5 XX GET
        SET a 1 NX XX
        SET a 1 XX NX
        SET a 1 EX
        SET a 1 EX x
        SET a 1 EX 0
        SET a 1 EX -1
        SET a 1 PX 0
        SET a 1 EXAT 0
        SET a 1 PXAT -5
        SET a 1 EX 10 PX 10
        SET a 1 EX 10 KEEPTTL
        SET a 1 KEEPTTL EX 10
        SET a 1 KEEPTTL KEEPTTL
        SET a 1 PERSIST
        SET a 1 nonsense
        SET a 1 EX 10 nonsense
        SET a 1 EX 9223372036854775807
        SET a 1 EX 9223372036854775
        SET a 1 PX 9223372036854775807
        SET a 1 EX 1.5
        SET a 1 EX 99999999999999999999
        SET a 1 ex 100 nx
        SET a 1 ex 100 xx get
        GET a"""),
    "keepttl": [("SET", "a", "1", "EX", "100"), near("TTL", "a"), ("SET", "a", "2", "KEEPTTL"), near("TTL", "a"),
                ("SET", "a", "3"), ("TTL", "a"), ("SET", "b", "1", "PX", "100000"), near("PTTL", "b"),
                ("GETSET", "b", "2"), ("TTL", "b"), ("SET", "c", "1", "EXAT", "33177117420"), near("TTL", "c"),
                ("EXPIRETIME", "c"), ("PEXPIRETIME", "c"), ("SET", "c", "1", "PXAT", "33177117420999"), ("EXPIRETIME", "c"),
                ("PEXPIRETIME", "c"), ("SET", "c", "1", "PXAT", "1"), ("GET", "c"), ("EXISTS", "c"), ("SET", "c", "1", "NX")],
    "the same option twice": words("""
        SET k v EX 1 EX 200
        SET k v EX 2 PX 3000
        SET k v PX 1 PX 200000
        SET k v EXAT 33177117420 EXAT 33177117421
        EXPIRETIME k
        SET k v PXAT 33177117420000 PXAT 33177117421000
        PEXPIRETIME k
        SET k v EX 100 EX x
        SET k v EX x EX 100
        SET k v EX 0 EX 100
        SET k v EX 100 EX 0
        SET k v EX 10 EX
        SET k v EX 1 EXAT 33177117420
        SET k v PX 1 PXAT 33177117420000
        SET k v EXAT 33177117420 EX 1
        SET k v KEEPTTL KEEPTTL
        SET k v NX NX
        SET k v XX XX
        SET k v GET GET
        GETEX k EXAT 33177117420 EXAT 33177117422
        EXPIRETIME k
        GETEX k EX 10 PX 20
        GETEX k PERSIST PERSIST
        GETEX k PERSIST EX 10
        GETEX k EX 10 PERSIST
        GETEX k EX x EX 10
        GETEX k EX 10 EX x
        GETEX nokey EX 10 EX 20
        EXPIRE k 100 NX NX
        EXPIRE k 100 XX XX
        EXPIRE k 100 GT GT
        COPY k c REPLACE REPLACE
        COPY k c DB 1 DB 2"""),
    "what is asked first": words("""
        FUNCTION FLUSH
        FUNCTION FLUSH SYNC
        function flush async
        FUNCTION FLUSH X
        FUNCTION FLUSH SYNC SYNC
        FUNCTION LIST
        FUNCTION LIST WITHCODE
        FUNCTION LIST LIBRARYNAME x
        FUNCTION LIST LIBRARYNAME
        FUNCTION LIST WITHCODE WITHCODE
        FUNCTION LIST X
        FUNCTION KILL
        FUNCTION DELETE x
        FUNCTION STATS x
        FUNCTION
        FUNCTION NOPE
        SCRIPT FLUSH
        SCRIPT FLUSH ASYNC
        SCRIPT FLUSH X
        SCRIPT FLUSH SYNC SYNC
        SCRIPT EXISTS a b
        SCRIPT EXISTS
        SCRIPT KILL
        SCRIPT
        SCRIPT NOPE
        CONFIG RESETSTAT
        DEBUG""") + [shape("FUNCTION", "STATS"), shape("FUNCTION", "HELP"), shape("SCRIPT", "HELP"), shape("DEBUG", "SLEEP", "0")],
    "shutdown's words": words("""
        SHUTDOWN SAVE NOSAVE
        SHUTDOWN NOSAVE SAVE
        SHUTDOWN NOSAVE NOW SAVE
        SHUTDOWN ABORT
        SHUTDOWN ABORT ABORT
        SHUTDOWN ABORT NOW
        SHUTDOWN NOSAVE ABORT
        SHUTDOWN FORCE ABORT
        SHUTDOWN X
        SHUTDOWN SAVE X
        PING"""),
    "counts inside a transaction": words("""
        SET before 1
        MULTI
        SET a 1
        DBSIZE
        FLUSHALL
        DBSIZE
        SET b 2
        DBSIZE
        DEL b
        DBSIZE
        SET c 3
        SELECT 2
        SET d 1
        FLUSHDB
        SET e 1
        SET f 1
        DBSIZE
        SELECT 0
        DBSIZE
        EXEC
        DBSIZE"""),
    "setnx and friends": words("""
        SETNX a 1
        SETNX a 2
        GET a
        SETEX b 100 v
        SETEX b 0 v
        SETEX b -1 v
        SETEX b x v
        SETEX b 9223372036854775807 v
        PSETEX b 100000 w
        PSETEX b 0 w
        PSETEX b x w
        GET b
        GETSET a 5
        GETSET nope 5
        GETDEL a
        GETDEL a
        GETEX b
        GETEX b PERSIST
        TTL b
        GETEX b EX 100
        GETEX b PERSIST EX 10
        GETEX b EX 10 PERSIST
        GETEX b EX
        GETEX b EX 0
        GETEX b EX x
        GETEX b KEEPTTL
        GETEX b NX
        GETEX b PXAT 1
        GET b
        GETEX nope EX 10
        GETEX nope EX x"""),
    "multiple keys": words("""
        MSET a 1 b 2 a 3
        MGET a b c a
        MSETNX c 1 a 5
        MGET a c
        MSETNX c 1 d 2 c 3
        MGET c d
        DEL a a nope
        EXISTS b b c nope
        TOUCH b c nope
        UNLINK b c d
        DBSIZE
        MGET a"""),
    "numbers": words("""
        INCR n
        INCRBY n 10
        DECR n
        DECRBY n 20
        GET n
        INCRBY n x
        INCRBY n 1.5
        INCRBY n ''
        INCRBY n +1
        INCRBY n 01
        INCRBY n -0
        SET t text
        INCR t
        DECR t
        INCRBY t 1
        SET t 007
        INCR t
        SET t -0
        INCR t
        SET t 9223372036854775807
        INCR t
        INCRBY t 1
        DECR t
        SET t -9223372036854775808
        DECR t
        DECRBY t -9223372036854775808
        INCRBY t -1
        SET t 9223372036854775808
        INCR t
        SET t ''
        INCR t""") + [("SET", "t", " 1"), ("INCR", "t"), ("SET", "t", "1 "), ("INCR", "t")],
    "floats": words("""
        INCRBYFLOAT f 1.5
        INCRBYFLOAT f 0.1
        INCRBYFLOAT f -1.6
        INCRBYFLOAT f 3.0e3
        INCRBYFLOAT f 200
        INCRBYFLOAT f x
        INCRBYFLOAT f ''
        INCRBYFLOAT f nan
        INCRBYFLOAT f inf
        INCRBYFLOAT f -inf
        INCRBYFLOAT f 1e5000
        INCRBYFLOAT f 0x10
        GET f
        SET f 5.0e3
        INCRBYFLOAT f 2.0e2
        SET f 10.50
        INCRBYFLOAT f 0.1
        INCRBYFLOAT f -5
        SET f 0
        INCRBYFLOAT f -0.0
        SET f text
        INCRBYFLOAT f 1
        SET f 1e17
        INCRBYFLOAT f 1
        INCRBYFLOAT f 1e-10
        INCRBYFLOAT g 1.23456789012345678901
        INCRBYFLOAT h 1e300
        INCRBYFLOAT big 1e4000""") + [("INCRBYFLOAT", "f", " 1"), ("INCRBYFLOAT", "f", "1 "), ("SET", "f", " 1"), ("INCRBYFLOAT", "f", "1")],
    "parts": words("""
        APPEND s hello
        APPEND s world
        APPEND s ''
        APPEND new ''
        EXISTS new
        STRLEN s
        STRLEN nope
        GETRANGE s 0 4
        GETRANGE s -5 -1
        GETRANGE s 0 -1
        GETRANGE s 3 1
        GETRANGE s -1 -5
        GETRANGE s 100 200
        GETRANGE s -100 2
        GETRANGE s -100 -90
        GETRANGE s 2 100
        GETRANGE nope 0 -1
        GETRANGE s x 1
        GETRANGE s 1 x
        SUBSTR s 1 3
        SETRANGE s 5 WORLD
        GET s
        SETRANGE s 12 !
        GET s
        SETRANGE pad 3 x
        GET pad
        SETRANGE pad -1 x
        SETRANGE pad x y
        SETRANGE pad 0 ''
        SETRANGE nope 5 ''
        EXISTS nope
        SETRANGE pad 9223372036854775807 ''""") + [("GETRANGE", "s", "0", BIG), ("GETRANGE", "s", SMALL, BIG), ("GETRANGE", "s", SMALL, SMALL)],
    "keys": words("""
        SET a 1
        SET b 2
        TYPE a
        TYPE nope
        RENAME a c
        RENAME a c
        RENAME c c
        GET c
        RENAMENX c b
        RENAMENX c d
        RENAMENX d d
        RENAMENX nope x
        GET d
        COPY d e
        COPY d e
        COPY d e REPLACE
        COPY d d
        COPY nope x
        COPY d d DB 1
        COPY d e DB 1
        COPY d e DB x
        COPY d e DB 16
        COPY d e DB -1
        COPY d e DB
        COPY d e nonsense
        COPY d e REPLACE DB 1
        SELECT 1
        MGET d e
        DBSIZE
        FLUSHDB
        DBSIZE
        SELECT 0
        DBSIZE
        FLUSHALL ASYNC
        DBSIZE
        FLUSHDB SYNC
        FLUSHDB nonsense
        RANDOMKEY
        SET only 1
        RANDOMKEY
        OBJECT ENCODING only
        OBJECT ENCODING nope
        OBJECT FREQ only
        OBJECT REFCOUNT nope
        SET only text
        OBJECT ENCODING only
        OBJECT REFCOUNT only
        SET only xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
        OBJECT ENCODING only
        MEMORY USAGE nope
        MEMORY USAGE only SAMPLES
        MEMORY USAGE only nonsense"""),
    "rename keeps expiry": [("SET", "a", "1", "EX", "100"), ("RENAME", "a", "b"), near("TTL", "b"), ("COPY", "b", "c"), near("TTL", "c"),
                            ("SET", "d", "1"), ("RENAME", "d", "b"), ("TTL", "b")],
    "keys and scan": [("MSET", "user:1", "a", "user:2", "b", "other", "c", "h[llo", "d", "hello", "e", "h\\llo", "f"),
                      unordered("KEYS", "*"), unordered("KEYS", "user:*"), unordered("KEYS", "user:?"), unordered("KEYS", "h?llo"),
                      unordered("KEYS", "h[a-f]llo"), unordered("KEYS", "h[^e]llo"), unordered("KEYS", "h\\[llo"), unordered("KEYS", "nope*"),
                      unordered("KEYS", "[ou]*"), unordered("KEYS", "*[12]"), unordered("KEYS", "h[z-a]llo"), unordered("KEYS", "h[e"),
                      unordered("KEYS", "*l*o"), unordered("KEYS", ""), unordered("KEYS", "h\\"),
                      unordered("SCAN", "0", "COUNT", "100"), unordered("SCAN", "0", "MATCH", "user:*", "COUNT", "100"),
                      unordered("SCAN", "0", "COUNT", "100", "TYPE", "string"), unordered("SCAN", "0", "COUNT", "100", "TYPE", "hash"),
                      ("SCAN", "x"), ("SCAN", "-1x"), ("SCAN", "0", "COUNT", "0"), ("SCAN", "0", "COUNT", "x"), ("SCAN", "0", "COUNT"),
                      ("SCAN", "0", "nonsense", "1"), ("SCAN", "0", "MATCH"), unordered("SCAN", "")],
    "expire": [("EXPIRE", "nope", "10"), ("SET", "a", "1"), ("TTL", "a"), ("PTTL", "nope"), ("EXPIRETIME", "a"), ("PEXPIRETIME", "nope"),
               ("EXPIRE", "a", "100"), near("TTL", "a"), near("PTTL", "a"), near("EXPIRETIME", "a"), near("PEXPIRETIME", "a"),
               ("EXPIRE", "a", "200", "NX"), ("EXPIRE", "a", "200", "XX"), ("EXPIRE", "a", "100", "GT"), ("EXPIRE", "a", "300", "GT"),
               ("EXPIRE", "a", "400", "LT"), ("EXPIRE", "a", "200", "LT"), near("TTL", "a"), ("PERSIST", "a"), ("PERSIST", "a"),
               ("PERSIST", "nope"), ("EXPIRE", "a", "100", "GT"), ("EXPIRE", "a", "100", "XX"), ("EXPIRE", "a", "100", "LT"),
               ("EXPIRE", "a", "100", "NX", "XX"), ("EXPIRE", "a", "100", "GT", "LT"), ("EXPIRE", "a", "100", "NX", "GT"),
               ("EXPIRE", "a", "100", "nonsense"), ("EXPIRE", "a", "50", "XX", "GT"), ("EXPIRE", "a", "x"), ("EXPIRE", "a", "1.5"),
               ("EXPIRE", "a", BIG), ("EXPIRE", "a", SMALL), ("PEXPIRE", "a", BIG), ("EXPIRE", "nope", BIG), ("EXPIRE", "a", "x", "nonsense"),
               ("EXPIREAT", "a", "33177117420"), ("TTL", "nope"), ("EXPIRETIME", "a"), ("PEXPIREAT", "a", "33177117420500"),
               ("EXPIRETIME", "a"), ("PEXPIRETIME", "a"), ("PEXPIREAT", "a", "33177117420499"), ("EXPIRETIME", "a"),
               ("PEXPIRE", "a", "100000"), near("PTTL", "a"), ("EXPIRE", "a", "0"), ("EXISTS", "a"), ("SET", "a", "1"),
               ("EXPIRE", "a", "-1"), ("GET", "a"), ("SET", "a", "1"), ("EXPIREAT", "a", "1"), ("EXISTS", "a"), ("SET", "a", "1"),
               ("PEXPIREAT", "a", "-1"), ("DBSIZE",), ("SET", "a", "1", "EX", "100"), ("INCR", "a"), near("TTL", "a"),
               ("APPEND", "a", "0"), near("TTL", "a"), ("SETRANGE", "a", "0", "9"), near("TTL", "a"), ("SET", "a", "1"), ("TTL", "a")],
    "transactions": words("""
        EXEC
        DISCARD
        MULTI
        MULTI
        SET a 1
        INCR a
        GET a
        SELECT 1
        SET b 1
        SELECT 0
        PING
        ECHO x
        EXEC
        GET a
        MULTI
        SET t text
        INCR t
        SET t2 2
        INCRBY t2 x
        EXEC
        MGET t t2
        MULTI
        SET a
        SET a 5
        EXEC
        GET a
        MULTI
        NOPE
        EXEC
        MULTI
        SET a 5
        DISCARD
        GET a
        EXEC
        MULTI
        EXEC
        WATCH a
        SET a 6
        MULTI
        SET a 7
        EXEC
        GET a
        WATCH a b
        MULTI
        WATCH c
        SET a 8
        EXEC
        WATCH a
        SET a 9
        UNWATCH
        MULTI
        GET a
        EXEC
        WATCH a
        DISCARD
        MULTI
        UNWATCH
        EXEC
        WATCH nope
        SET nope 1
        MULTI
        PING
        EXEC
        WATCH nope
        DEL other
        MULTI
        PING
        EXEC
        WATCH nope
        FLUSHDB
        MULTI
        PING
        EXEC
        WATCH nope
        FLUSHALL
        MULTI
        PING
        EXEC
        MULTI
        SAVE
        EXEC
        MULTI
        SHUTDOWN
        EXEC
        MULTI
        CLIENT nope
        EXEC
        MULTI
        CLIENT GETNAME
        SET k v EX nonsense
        SET k v EX 0
        DEL k k
        EXPIRE a x
        EXEC
        MULTI
        RESET
        EXEC
        MULTI
        QUIT"""),
    "connection": words("""
        SELECT 0
        SELECT 15
        SELECT 16
        SELECT -1
        SELECT x
        SELECT 1.5
        CLIENT GETNAME
        CLIENT SETNAME me
        CLIENT GETNAME
        CLIENT SETNAME ''
        CLIENT GETNAME
        CLIENT REPLY nonsense
        CLIENT REPLY ON
        CLIENT NO-EVICT ON
        CLIENT NO-EVICT x
        CLIENT TRACKING OFF
        CLIENT GETREDIR
        CLIENT UNBLOCK 12345
        CLIENT UNBLOCK x
        CLIENT UNBLOCK 1 nonsense
        CLIENT KILL 1.2.3.4:5
        CLIENT KILL ID 123456
        CLIENT KILL ID x
        CLIENT KILL ID 0
        CLIENT KILL TYPE nonsense
        CLIENT KILL TYPE pubsub
        CLIENT KILL ADDR 1.2.3.4:5
        CLIENT KILL nonsense x
        CLIENT KILL USER nobody
        CLIENT KILL SKIPME x
        CLIENT KILL ID
        CLIENT LIST TYPE nonsense
        CLIENT LIST TYPE pubsub
        CLIENT LIST ID x
        CLIENT LIST nonsense
        CLIENT LIST ID 123456
        AUTH secret
        AUTH default secret
        AUTH nobody secret
        AUTH a b c
        HELLO x
        HELLO 1
        HELLO 4
        HELLO 3 nonsense
        HELLO 3 AUTH a
        HELLO 3 SETNAME
        HELLO 2 AUTH nobody x
        WAIT 0 0
        WAIT x 0
        WAIT 0 x
        WAIT 0 -1
        ROLE
        RESET
        LASTSAVE x""") + [("CLIENT", "SETNAME", "with space"), ("CLIENT", "SETNAME", "new\nline"), shape("CLIENT", "ID"), shape("CLIENT", "LIST"),
                          shape("CLIENT", "INFO"), shape("TIME"), near("LASTSAVE"), shape("INFO"), shape("INFO", "server"), ("INFO", "nonsense"),
                          shape("CLIENT", "LIST", "ID", "1", "2"), shape("MEMORY", "USAGE", "a"), ("CLIENT", "REPLY", "ON")],
    "hello": [shape("HELLO"), shape("HELLO", "2"), shape("HELLO", "3"), ("GET", "nope"), shape("HELLO", "2"), ("GET", "nope"),
              shape("HELLO", "3", "SETNAME", "me"), ("CLIENT", "GETNAME"), ("HELLO", "3", "SETNAME", "a b"),
              shape("HELLO", "3", "AUTH", "default", "x"), ("CONFIG", "GET", "databases"), ("RESET",), ("GET", "nope")],
    "config": words("""
        CONFIG GET databases
        CONFIG GET nope
        CONFIG GET save
        CONFIG GET DATABASES
        CONFIG SET nope 1
        CONFIG SET databases 5
        CONFIG RESETSTAT
        CONFIG REWRITE
        CONFIG SET timeout 0
        CONFIG GET timeout
        CONFIG SET timeout 0 nope 1""") + [unordered("CONFIG", "GET", "databases", "timeout")],
    "command": [("COMMAND", "INFO", "nope"), ("COMMAND", "GETKEYS", "GET", "a"), ("COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2"),
                ("COMMAND", "GETKEYS", "PING"), ("COMMAND", "GETKEYS", "NOPE", "x"), ("COMMAND", "GETKEYS", "SET", "a"),
                ("COMMAND", "GETKEYS", "DEL", "a", "b"), ("COMMAND", "GETKEYS", "OBJECT", "ENCODING", "k"), ("COMMAND", "DOCS", "nope"),
                ("COMMAND", "LIST", "FILTERBY", "PATTERN", "getde*"), ("COMMAND", "LIST", "nonsense"), shape("COMMAND"), shape("COMMAND", "DOCS"),
                shape("COMMAND", "DOCS", "get"), shape("COMMAND", "COUNT"), shape("COMMAND", "INFO", "get"), ("COMMAND", "LIST", "FILTERBY", "MODULE", "x"),
                ("COMMAND", "GETKEYS", "RENAME", "a", "b")],
}

# Bytes sent as they are; then everything that comes back until the server closes (or a PING's reply).
RAW = {
    "inline": b"PING\r\n  SET  a  'b c'  \r\nGET a\r\n\r\n\r\nECHO \"\\x41\\n\\\"q\"\r\nECHO 'it\\'s'\r\nGET\r\nPING\n",
    "unbalanced": b'ECHO "abc\r\nPING\r\n',
    "unbalanced after": b'ECHO "abc"d\r\n',
    "negative multibulk": b"*-1\r\n*0\r\nPING\r\n",
    "bad multibulk": b"*abc\r\n",
    "huge multibulk": b"*2147483648\r\n",
    "not a bulk": b"*1\r\n:5\r\n",
    "no dollar": b"*2\r\n$3\r\nGET\r\nabc\r\n",
    "bad bulk length": b"*1\r\n$x\r\n",
    "negative bulk length": b"*1\r\n$-1\r\n",
    "huge bulk length": b"*2\r\n$3\r\nGET\r\n$10737418240\r\n",
    "long inline": b"x" * 70000,
    "long multibulk count": b"*" + b"1" * 70000,
    "long bulk count": b"*1\r\n$" + b"1" * 70000,
    "pipeline": b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
    "http": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    "get and host": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "reply off": b"CLIENT REPLY OFF\r\nPING\r\nCLIENT REPLY ON\r\nPING\r\n",
    "reply skip": b"CLIENT REPLY SKIP\r\nECHO 1\r\nECHO 2\r\n",
    "reply skip off": b"CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nECHO 1\r\nECHO 2\r\nCLIENT REPLY ON\r\nPING\r\n",
}


def same(mark, ours, theirs):
    if mark == "ignore":
        return True
    if mark == "shape":
        return ours.kind == theirs.kind
    if mark == "near":
        return ours.kind == theirs.kind == ":" and abs(ours.value - theirs.value) <= 2000
    if mark == "unordered":
        return normal(ours) == normal(theirs)
    return ours == theirs


def normal(reply):
    if isinstance(reply.value, list):
        return (reply.kind, sorted((normal(item) for item in reply.value), key=repr))
    return (reply.kind, reply.value)


def run_case(server, requests, resp3):
    with Connection(server.host, server.port) as connection:
        connection.call("FLUSHALL")
        if resp3:
            connection.call("HELLO", "3")
        replies = []
        for request in requests:
            try:
                replies.append(connection.call(*request))
            except EOFError:
                replies.append(Reply("closed", None))
                break
        return replies


def run_raw(server, data):
    with Connection(server.host, server.port) as connection:
        connection.call("FLUSHALL")
        received = b""
        try:
            connection.send_raw(data)
            connection.socket.shutdown(1)
            while chunk := connection.file.read1(65536):
                received += chunk
        except OSError:
            pass  # closed with our bytes unread
        return received


def main():
    failures = compared = 0
    with server_from_argument() as ours, RedisServer() as theirs:
        for name, requests in CASES.items():
            for resp3 in (False, True):
                got, expected = run_case(ours, requests, resp3), run_case(theirs, requests, resp3)
                for request, mine, real in zip(requests, got, expected):
                    compared += 1
                    if not same(getattr(request, "mark", None), mine, real):
                        failures += 1
                        print(f"{name} (RESP{3 if resp3 else 2}): {' '.join(map(str, request))[:100]}\n  Redis {real}\n  Kelda {mine}")
                if len(got) != len(expected):
                    failures += 1
                    print(f"{name}: {len(got)} replies, Redis gave {len(expected)}")
        for name, data in RAW.items():
            compared += 1
            got, expected = run_raw(ours, data), run_raw(theirs, data)
            if got != expected:
                failures += 1
                print(f"raw {name}:\n  Redis {expected!r}\n  Kelda {got!r}")
    print(f"{compared} replies compared, {failures} differ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
