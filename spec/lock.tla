--------------------------------- MODULE lock ----------------------------------
(*
A lock with its fencing token: `coordination/lock.py` over `coordination/contention.py`.

Whoever wants the lock puts a key under a lease; the key's create revision is its token. The
oldest key holds. A holder may freeze for as long as it likes: its lease ends, the next one
holds, and it goes on believing. So what the lock protects compares tokens.
*)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Client,
    RevisionMax, WriteMax,
    Broken          \* rules that are off

VARIABLES
    revision,   \* of the store
    keys,       \* client -> the create revision of its key, or 0
    token,      \* client -> its token, as it knows it, or 0
    state,      \* "out", "waiting", "holding", as the client believes
    leaving,    \* deletions on their way: <<client, token>>
    writes,     \* writes on their way to what the lock protects, by token
    highest,    \* the highest token that the resource has seen
    accepted,   \* the tokens of the writes that it took, in order
    granted,    \* the tokens of all holders, in order
    wrote,      \* writes sent
    robbed      \* a key was deleted by somebody who left another

vars == <<revision, keys, token, state, leaving, writes, highest, accepted, granted, wrote, robbed>>

On(rule) == rule \notin Broken
Max(a, b) == IF a > b THEN a ELSE b
Line == {c \in Client : keys[c] # 0}
IsFirst(c) == keys[c] # 0 /\ \A d \in Line : keys[c] <= keys[d]

Init ==
    /\ revision = 0
    /\ keys = [c \in Client |-> 0]
    /\ token = [c \in Client |-> 0]
    /\ state = [c \in Client |-> "out"]
    /\ leaving = {}
    /\ writes = {}
    /\ highest = 0
    /\ accepted = <<>>
    /\ granted = <<>>
    /\ wrote = 0
    /\ robbed = FALSE

\* `Contender.enter`
Enter(c) ==
    LET created == IF On("token-is-a-revision") THEN revision + 1 ELSE Cardinality(Line) + 1 IN
    /\ state[c] = "out" /\ keys[c] = 0 /\ revision < RevisionMax
    /\ revision' = revision + 1
    /\ keys' = [keys EXCEPT ![c] = created]
    /\ token' = [token EXCEPT ![c] = created]
    /\ state' = [state EXCEPT ![c] = "waiting"]
    /\ UNCHANGED <<leaving, writes, highest, accepted, granted, wrote, robbed>>

\* `Contender.wait_turn`: a linearizable look at the line.
TurnComes(c) ==
    /\ state[c] = "waiting" /\ keys[c] = token[c]
    /\ IsFirst(c) \/ ~On("oldest-holds")
    /\ state' = [state EXCEPT ![c] = "holding"]
    /\ granted' = Append(granted, token[c])
    /\ UNCHANGED <<revision, keys, token, leaving, writes, highest, accepted, wrote, robbed>>

\* At any moment, and its holder need not know.
LeaseEnds(c) ==
    /\ keys[c] # 0
    /\ keys' = [keys EXCEPT ![c] = 0]
    /\ UNCHANGED <<revision, token, state, leaving, writes, highest, accepted, granted, wrote, robbed>>

\* `LeaseKeeper`: the loss is noticed, sooner or later.
Notice(c) ==
    /\ state[c] # "out" /\ keys[c] # token[c]
    /\ state' = [state EXCEPT ![c] = "out"]
    /\ token' = [token EXCEPT ![c] = 0]
    /\ UNCHANGED <<revision, keys, leaving, writes, highest, accepted, granted, wrote, robbed>>

\* `Contender.leave` is sent; it may arrive much later.
Leave(c) ==
    /\ state[c] = "holding"
    /\ leaving' = leaving \cup {<<c, token[c]>>}
    /\ state' = [state EXCEPT ![c] = "out"]
    /\ token' = [token EXCEPT ![c] = 0]
    /\ UNCHANGED <<revision, keys, writes, highest, accepted, granted, wrote, robbed>>

\* Deleted only if it is still the key that the token names.
Delete == \E sent \in leaving :
    LET c == sent[1] IN
    /\ leaving' = leaving \ {sent}
    /\ keys' = IF keys[c] = sent[2] \/ ~On("leaving-names-its-token")
               THEN [keys EXCEPT ![c] = 0] ELSE keys
    /\ robbed' = (robbed \/ (keys'[c] # keys[c] /\ keys[c] # sent[2]))
    /\ UNCHANGED <<revision, token, state, writes, highest, accepted, granted, wrote>>

Write(c) ==
    /\ state[c] = "holding" /\ wrote < WriteMax
    /\ wrote' = wrote + 1
    /\ writes' = writes \cup {token[c]}
    /\ UNCHANGED <<revision, keys, token, state, leaving, highest, accepted, granted, robbed>>

\* What the lock protects takes no write of an older holder once it has seen a newer one.
Take == \E sent \in writes :
    /\ writes' = writes \ {sent}
    /\ highest' = Max(highest, sent)
    /\ accepted' = IF sent >= highest \/ ~On("resource-compares-tokens")
                   THEN Append(accepted, sent) ELSE accepted
    /\ UNCHANGED <<revision, keys, token, state, leaving, granted, wrote, robbed>>

Next ==
    \/ Delete \/ Take
    \/ \E c \in Client :
        \/ Enter(c) \/ TurnComes(c) \/ LeaseEnds(c) \/ Notice(c) \/ Leave(c) \/ Write(c)

Spec == Init /\ [][Next]_vars

-------------------------------------------------------------------------------
\* By the store's count there is one holder. (A former one may believe that it is another.)
OneHolder == Cardinality({c \in Client : state[c] = "holding" /\ keys[c] = token[c]}) <= 1

\* Each holder's token is higher than all before.
TokensGrow == \A i \in 2..Len(granted) : granted[i - 1] < granted[i]

\* After a write of a newer holder none of an older one is taken.
NoStaleWriteIsTaken == \A i \in 2..Len(accepted) : accepted[i - 1] <= accepted[i]

\* Whoever leaves takes its own key with it and no later one.
OnlyTheOwnKeyGoes == ~robbed
===============================================================================
