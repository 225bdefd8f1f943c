--------------------------------- MODULE lease ---------------------------------
(*
A lease with stamps: its holder's deadline has passed before the store can end it.
`docs/protocols/lease.md` says the same in words.

  time     no clock is read; what counts is how long ago something was, up to Ttl
  Ttl      the least true time that a ttl lasts on a clock of the store
  Trust    the most true time that the holder's share of a ttl lasts on its clock. With
           clocks within 2.5 % of true, 0.95 ttl lasts at most 0.9744 ttl, and a ttl at
           least 0.9756: so Trust <= Ttl, and that is all that is used of clocks.
  frozen   a holder that takes no step; whoever passes something on for it looks at the
           page and then at the clock, so it acts exactly while `left` is above 0

The store is Raft with its log in full and its messages left out: entries reach members
one by one, a leader that was deposed may not know it, uncommitted entries are replaced.
Time is not in the log. Each member stamps an entry when it appends it.
*)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Member,     \* the store's voters
    Ttl, Trust,
    EntryMax, TermMax, RestartMax, AskMax,
    MayRelease, \* the holder may give its lease up early
    Broken      \* rules that are off

VARIABLES
    log,        \* member -> entries: [term, kind, ask, saw]; the first is the grant
    ages,       \* member -> how long ago it appended each of them
    seen,       \* member -> the highest term that it knows
    leads,      \* member -> the term that it believes to lead, or 0
    committed,  \* what a majority has held: the log that is applied
    asks,       \* how long ago each renewal was sent
    arriving,   \* renewals that have not reached the store
    answers,    \* "renewed", on its way back
    left,       \* the holder acts until this is over
    released,   \* "no", "asked", "done": the holder has let go
    restarts

vars == <<log, ages, seen, leads, committed, asks, arriving, answers, left, released, restarts>>

On(rule) == rule \notin Broken
Max(a, b) == IF a > b THEN a ELSE b
Minus(a, b) == IF a > b THEN a - b ELSE 0
IsMajority(members) == 2 * Cardinality(members) > Cardinality(Member)

Renewals(entries, before) == {i \in 1..before : entries[i].kind = "renew"}
\* The last renewal among the first entries; the grant counts as one.
LastRenewal(entries, before) ==
    CHOOSE i \in Renewals(entries, before) : \A j \in Renewals(entries, before) : j <= i

\* An end that names its renewal is refused where a later one was applied before it.
Ends(entries, i) ==
    \/ entries[i].kind = "revoke"
    \/ /\ entries[i].kind = "expire"
       /\ entries[i].saw = LastRenewal(entries, i) \/ ~On("end-names-its-renewal")
HasEnded(entries, before) == \E i \in 1..before : Ends(entries, i)

Common(s, t) == CHOOSE n \in 0..Len(s) :
    /\ n <= Len(t) /\ \A i \in 1..n : s[i] = t[i]
    /\ n < Len(s) /\ n < Len(t) => s[n + 1] # t[n + 1]
Holds(m, entries) == Len(log[m]) >= Len(entries) /\ SubSeq(log[m], 1, Len(entries)) = entries

Entry(term, kind, ask, saw) == [term |-> term, kind |-> kind, ask |-> ask, saw |-> saw]

-------------------------------------------------------------------------------
Init ==
    /\ log = [m \in Member |-> <<Entry(1, "renew", 0, 0)>>]
    /\ ages = [m \in Member |-> <<0>>]
    /\ seen = [m \in Member |-> 1]
    /\ \E first \in Member : leads = [m \in Member |-> IF m = first THEN 1 ELSE 0]
    /\ committed = <<Entry(1, "renew", 0, 0)>>
    /\ asks = <<>>
    /\ arriving = {}
    /\ answers = {}
    /\ left = Trust
    /\ released = "no"
    /\ restarts = 0

Older(age) == IF age < Ttl THEN age + 1 ELSE age

\* Time passes. Once the holder acts no more it never will again: nothing is left to be seen.
Tick ==
    /\ left > 0
    /\ ages' = [m \in Member |-> [i \in 1..Len(ages[m]) |-> Older(ages[m][i])]]
    /\ asks' = [i \in 1..Len(asks) |-> Older(asks[i])]
    /\ left' = left - 1
    /\ UNCHANGED <<log, seen, leads, committed, arriving, answers, released, restarts>>

-------------------------------------------------------------------------------
\* The holder

\* Every attempt, a retry included, is a new renewal.
Ask ==
    /\ left > 0 /\ released = "no" /\ Len(asks) < AskMax
    /\ asks' = Append(asks, 0)
    /\ arriving' = arriving \cup {Len(asks) + 1}
    /\ UNCHANGED <<log, ages, seen, leads, committed, answers, left, released, restarts>>

\* An answer counts from the moment at which that very attempt was sent.
Hear == \E ask \in answers :
    LET share == Trust + (IF On("fence-comes-before-the-end") THEN 0 ELSE 1)
        mine == IF On("counts-from-the-send") THEN Minus(share, asks[ask]) ELSE share
        isIgnored == IF released = "no" THEN left = 0 ELSE On("release-is-final")
    IN
    /\ answers' = answers \ {ask}
    /\ left' = IF isIgnored THEN left ELSE Max(left, mine)
    /\ UNCHANGED <<log, ages, seen, leads, committed, asks, arriving, released, restarts>>

\* First the page is closed and nothing is left that could act; then the lease is given up.
Release ==
    /\ MayRelease /\ released = "no" /\ left > 0
    /\ released' = "asked"
    /\ left' = IF On("closed-before-it-is-released") THEN 0 ELSE left
    /\ UNCHANGED <<log, ages, seen, leads, committed, asks, arriving, answers, restarts>>

-------------------------------------------------------------------------------
\* The store

AppendTo(m, entry) ==
    /\ Len(log[m]) < EntryMax
    /\ log' = [log EXCEPT ![m] = Append(@, entry)]
    /\ ages' = [ages EXCEPT ![m] = Append(@, 0)]

\* A renewal arrives at a member that believes to lead. It is answered once it is applied.
Renew(m) == \E ask \in arriving :
    /\ leads[m] # 0
    /\ AppendTo(m, Entry(leads[m], "renew", ask, 0))
    /\ arriving' = arriving \ {ask}
    /\ answers' = IF On("answered-when-applied") THEN answers ELSE answers \cup {ask}
    /\ UNCHANGED <<seen, leads, committed, asks, left, released, restarts>>

Revoke(m) ==
    /\ leads[m] # 0 /\ released = "asked"
    /\ released' = "done"
    /\ AppendTo(m, Entry(leads[m], "revoke", 0, 0))
    /\ UNCHANGED <<seen, leads, committed, asks, arriving, answers, left, restarts>>

\* The ttl has passed on this member's own stamp of the last renewal that it has applied; it may be
\* behind with applying.
Expire(m) == \E applied \in 1..Len(committed) :
    LET renewal == LastRenewal(log[m], applied) IN
    /\ leads[m] # 0 /\ applied <= Len(log[m])
    /\ ages[m][renewal] >= Ttl
    /\ AppendTo(m, Entry(leads[m], "expire", 0, renewal))
    /\ UNCHANGED <<seen, leads, committed, asks, arriving, answers, left, released, restarts>>

\* The next entry of a leader reaches a member. What stands there instead is replaced, stamp too.
Replicate(l, m) ==
    LET common == Common(log[m], log[l]) IN
    /\ l # m /\ leads[l] # 0 /\ seen[m] <= leads[l]
    /\ common < Len(log[l])
    /\ log' = [log EXCEPT ![m] = Append(SubSeq(@, 1, common), log[l][common + 1])]
    /\ ages' = [ages EXCEPT ![m] = Append(SubSeq(@, 1, common), 0)]
    /\ seen' = [seen EXCEPT ![m] = leads[l]]
    /\ leads' = [leads EXCEPT ![m] = IF leads[l] > seen[m] THEN 0 ELSE @]
    /\ UNCHANGED <<committed, asks, arriving, answers, left, released, restarts>>

\* A majority holds an entry of its leader's own term: it is applied, and its sender hears so. For a
\* lease that has ended it hears that instead.
Commit(l) == \E i \in 2..Len(log[l]) :
    LET entries == SubSeq(log[l], 1, i) IN
    /\ leads[l] # 0 /\ log[l][i].term = leads[l]
    /\ IsMajority({m \in Member : Holds(m, entries)})
    /\ committed' = IF Len(committed) < i THEN entries ELSE committed
    /\ answers' = answers \cup {log[l][j].ask : j \in {k \in 2..i :
            log[l][k].kind = "renew" /\ log[l][k].term = leads[l] /\ ~HasEnded(log[l], k)}}
    /\ committed' # committed \/ answers' # answers
    /\ UNCHANGED <<log, ages, seen, leads, asks, arriving, left, released, restarts>>

IsUpToDate(m, than) ==
    LET last(n) == log[n][Len(log[n])].term IN
    \/ last(m) > last(than)
    \/ last(m) = last(than) /\ Len(log[m]) >= Len(log[than])

\* The old leader, unless it voted, does not know.
Elect(m) == \E voters \in SUBSET Member :
    LET term == seen[m] + 1 IN
    /\ term <= TermMax
    /\ m \in voters /\ IsMajority(voters)
    /\ \A v \in voters : seen[v] < term /\ IsUpToDate(m, v)
    /\ seen' = [v \in Member |-> IF v \in voters THEN term ELSE seen[v]]
    /\ leads' = [v \in Member |-> IF v = m THEN term ELSE IF v \in voters THEN 0 ELSE leads[v]]
    /\ UNCHANGED <<log, ages, committed, asks, arriving, answers, left, released, restarts>>

\* Stamps are in memory only: after a restart all that the log holds was appended "now".
Restart(m) ==
    /\ restarts < RestartMax
    /\ restarts' = restarts + 1
    /\ leads' = [leads EXCEPT ![m] = 0]
    /\ ages' = [ages EXCEPT ![m] =
                    [i \in 1..Len(@) |-> IF On("restart-stamps-anew") THEN 0 ELSE Ttl]]
    /\ UNCHANGED <<log, seen, committed, asks, arriving, answers, left, released>>

Next ==
    \/ Tick \/ Ask \/ Hear \/ Release
    \/ \E m \in Member :
        \/ Renew(m) \/ Revoke(m) \/ Expire(m) \/ Commit(m) \/ Elect(m) \/ Restart(m)
        \/ \E l \in Member : Replicate(l, m)

Spec == Init /\ [][Next]_vars

-------------------------------------------------------------------------------
\* The lease has ended for everybody: its holder does not act any more.
FencedBeforeReplaced == HasEnded(committed, Len(committed)) => left = 0

\* What is applied stays applied: the newest leader has it.
CommittedStands == \A m \in Member :
    leads[m] # 0 /\ (\A n \in Member : seen[n] <= leads[m]) => Holds(m, committed)

\* For a smaller search: a holder that has stopped without letting go never acts again.
IsWorthALook == left > 0 \/ released # "no"
===============================================================================
