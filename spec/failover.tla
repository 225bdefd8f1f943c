------------------------------- MODULE failover -------------------------------
(*
The promotion rule: who may be primary, whose acknowledgement counts, and when
an acknowledgement may be passed on. `docs/protocols/failover.md` says the same
in words and names the function behind each action.

  store       linearizable; what a transaction compares is the guard of its action
  lease       ends at any moment (`LeaseEnds`), and its former holder may go on for
              as long as it likes: frozen and thawed, slow, or never told. Nothing
              here rests on a clock; `lease.tla` has the clocks.
  frozen      a process that takes no step for a while; every process may be one
  down        the same; a crash is the moment at which memory is lost (`Restart`)
  replicas    point at a source and pull its log, one record at a time. A source
              counts whoever acknowledges, as MariaDB does: it does not look into
              the record. So "acknowledges only if recorded" is kept by switching
              the replica, by locking it out, and by the order of both.

`Broken` names rules that are switched off: each must let an invariant break.
*)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Node,              \* the data nodes
    None,              \* nobody, nothing
    Acks,              \* the policy's k
    MayDegrade,        \* on_timeout = "degrade"
    DegradedMayLose,   \* degrade_failover = "lossy"
    FirstMembers,      \* sizes that the first sync set may have
    EpochMax, WriteMax, RecordMax, CrashMax, WipeMax, LifeMax,
    Idle,              \* actions that take no part: keeps a configuration small
    Broken             \* rules that are off

VARIABLES
    \* the store
    winners,    \* epoch -> who claimed it: [node, life]; `cluster/epoch` is its length
    held,       \* whether the primary record of the last winner stands
    durs,       \* revision -> durability record; the last one is in force
    seals,      \* node -> its published seal, or None
    swaps,      \* swaps that were sent and may still be applied
    offer,      \* a planned hand-over: [epoch, target, length], or None
    \* each node, durable
    log,        \* records <<epoch, write>>; write 0 is the epoch row
    life,       \* incarnation
    refuses,    \* "every sender below is refused"
    cut,        \* the log was cut since this node was primary
    excluded,   \* whom this node, as a source, locks out
    \* each node, in memory
    leads,      \* the epoch that its server is primary of, or 0
    doors,      \* "closed", "open", "offered"
    waits,      \* how many acknowledgements a commit waits for
    got,        \* got[p][n]: how far n has told p that it holds p's log
    change,     \* a transition that this node has begun: [new, base, mark, sent], or None
    source,     \* whom it follows: [node, epoch, acks], or None
    acted,      \* the epoch and the revision of D by which it last acted
    \* what was promised
    wrote,      \* how many writes clients sent
    acked,      \* writes that clients heard "committed" of, under a promise
    lost,       \* a lossy failover took place: rule 6
    crashes, wipes

store == <<winners, held, durs, seals, swaps, offer>>
disk == <<log, life, refuses, cut, excluded>>
server == <<leads, doors, waits, got, change>>
promises == <<wrote, lost>>
faults == <<crashes, wipes>>
vars == <<store, disk, server, source, acted, wrote, acked, lost, faults>>

-------------------------------------------------------------------------------
\* Small parts

On(rule) == rule \notin Broken
Max(a, b) == IF a > b THEN a ELSE b
Nodes(members) == {m[1] : m \in members}
Self(n) == <<n, life[n]>>

epoch == Len(winners)
holder == winners[epoch].node
rev == Len(durs)
D == durs[rev]

IsCurrent(p) == held /\ holder = p /\ leads[p] = epoch
Revisions(e) == {r \in 1..rev : durs[r].epoch = e}
HasOwn(e) == Revisions(e) # {}
OwnRevision(e) == CHOOSE r \in Revisions(e) : \A s \in Revisions(e) : s <= r
Own(e) == durs[OwnRevision(e)]

Row(e) == <<e, 0>>
Holds(n, record) == \E i \in 1..Len(log[n]) : log[n][i] = record
IsPrefix(s, t) == Len(s) <= Len(t) /\ s = SubSeq(t, 1, Len(s))
Common(s, t) == CHOOSE i \in 0..Len(s) :
    /\ IsPrefix(SubSeq(s, 1, i), t)
    /\ \A j \in 0..Len(s) : IsPrefix(SubSeq(s, 1, j), t) => j <= i

\* A position: (epoch of the last record, sequence).
End(n) == IF log[n] = <<>> THEN <<0, 0>> ELSE <<log[n][Len(log[n])][1], Len(log[n])>>
IsBehind(p, q) ==
    IF On("position-has-its-epoch")
    THEN p[1] < q[1] \/ (p[1] = q[1] /\ p[2] < q[2])
    ELSE p[2] < q[2]

Follows(n, p, e) == source[n] # None /\ source[n].node = p /\ source[n].epoch = e
\* The switch of a replica: it acknowledges now, or will when it connects again.
IsSwitchedOn(n) == source[n] # None /\ source[n].acks
\* As far as the server shows it in its status: only what is connected acknowledges.
ShowsAcks(p, n) == IsSwitchedOn(n) /\ (On("locked-out-is-not-silent") \/ n \notin excluded[p])
\* It has durably noted this very epoch, and will acknowledge by no older record.
IsToldSilently(p, n, e) ==
    /\ acted[n].epoch = e
    /\ refuses[n] >= e \/ ~On("follower-notes")
    /\ ~ShowsAcks(p, n)

\* Who counts in the record: this very life, or only the name.
Names(d, n) == IF On("lives-are-told-apart") THEN Self(n) \in d.members ELSE n \in Nodes(d.members)

Forgotten == [n \in Node |-> 0]
Unknown == [epoch |-> 0, primary |-> <<None, 0>>, acks |-> 0, members |-> {}, lossy |-> FALSE]
Nothing == [epoch |-> 0, rev |-> 0]

-------------------------------------------------------------------------------
\* The beginning: some node leads epoch 1 with open doors.

First(p, members) ==
    /\ winners = <<[node |-> p, life |-> 1]>>
    /\ held = TRUE
    /\ durs = <<[epoch |-> 1, primary |-> <<p, 1>>, acks |-> Acks,
                 members |-> {<<n, 1>> : n \in members}, lossy |-> Acks = 0]>>
    /\ seals = [n \in Node |-> None]
    /\ swaps = {}
    /\ offer = None
    /\ log = [n \in Node |-> <<Row(1)>>]
    /\ life = [n \in Node |-> 1]
    /\ refuses = [n \in Node |-> 1]
    /\ cut = [n \in Node |-> FALSE]
    /\ excluded = [n \in Node |-> {}]
    /\ leads = [n \in Node |-> IF n = p THEN 1 ELSE 0]
    /\ doors = [n \in Node |-> IF n = p THEN "open" ELSE "closed"]
    /\ waits = [n \in Node |-> IF n = p THEN Acks ELSE 0]
    /\ got = [n \in Node |-> Forgotten]
    /\ change = [n \in Node |-> None]
    /\ source = [n \in Node |->
                    IF n = p THEN None ELSE [node |-> p, epoch |-> 1, acks |-> n \in members]]
    /\ acted = [n \in Node |-> [epoch |-> 1, rev |-> 1]]
    /\ wrote = 0
    /\ acked = {}
    /\ lost = FALSE
    /\ crashes = 0
    /\ wipes = 0

Init == \E p \in Node : \E members \in SUBSET (Node \ {p}) :
    Cardinality(members) \in FirstMembers /\ First(p, members)

-------------------------------------------------------------------------------
\* Clients, and the log on its way

\* A client's write reaches a server with open doors: appended and durable there. What a former
\* primary takes it might as well have taken before: here, and below, that order is enough.
Write(p) ==
    /\ IsCurrent(p) /\ doors[p] = "open" /\ wrote < WriteMax
    /\ wrote' = wrote + 1
    /\ log' = [log EXCEPT ![p] = Append(@, <<leads[p], wrote + 1>>)]
    /\ UNCHANGED <<store, life, refuses, cut, excluded, server, source, acted, lost, faults>>

\* Rule 1. What a primary may pass on counts as passed on at once: later would promise no more. A
\* former primary does so as well, for as long as its doors stand open.
Acknowledged == UNION {{log[p][i] : i \in {j \in 1..Len(log[p]) :
    /\ log[p][j][2] # 0
    /\ \/ /\ log[p][j][1] = leads[p] /\ doors[p] # "closed"
          /\ Cardinality({n \in Node : got[p][n] >= j}) >= waits[p]
          /\ ~(HasOwn(leads[p]) /\ Own(leads[p]).lossy)
       \/ /\ ~On("waiting-commits-are-not-released")
          /\ log[p][j][1] < leads[p] /\ winners[log[p][j][1]].node = p}} : p \in Node}

\* A replica receives the next record of its source, durably, and says so at once where it is
\* switched on. A source that has restarted is connected to anew; one that locks it out is not.
Receive(n) ==
    /\ source[n] # None
    /\ LET p == source[n].node IN
        /\ n \notin excluded[p]
        /\ IsPrefix(log[n], log[p]) /\ Len(log[n]) < Len(log[p])
        /\ log' = [log EXCEPT ![n] = Append(@, log[p][Len(@) + 1])]
        /\ got' = IF source[n].acks /\ leads[p] # 0
                  THEN [got EXCEPT ![p][n] = Max(@, Len(log[n]) + 1)] ELSE got
    /\ UNCHANGED <<store, life, refuses, cut, excluded, leads, doors, waits, change, source, acted,
                   promises, faults>>

-------------------------------------------------------------------------------
\* A node's life

ForgetServer(n) ==
    /\ leads' = [leads EXCEPT ![n] = 0]
    /\ doors' = [doors EXCEPT ![n] = "closed"]
    /\ waits' = [waits EXCEPT ![n] = 0]
    /\ got' = [got EXCEPT ![n] = Forgotten]
    /\ change' = [change EXCEPT ![n] = None]
    /\ source' = [source EXCEPT ![n] = None]

\* By the store's count of time, or given up: whatever compares the record is void from now on.
NoRecord ==
    /\ held' = FALSE
    /\ swaps' = {}
    /\ offer' = None

\* A crash, the guard's kill, or giving up: the page is closed for good, memory is gone. A lease that
\* is held ends then or a little later, which makes no difference: nothing is left to do with it.
\* (Whom it locked out stays so in truth. Here it is forgotten: that lets more happen.)
Restart(n) ==
    /\ \/ leads[n] # 0 /\ UNCHANGED crashes
       \/ source[n] # None /\ crashes < CrashMax /\ crashes' = crashes + 1
    /\ ForgetServer(n)
    /\ excluded' = [excluded EXCEPT ![n] = {}]
    /\ IF IsCurrent(n) THEN NoRecord ELSE UNCHANGED <<held, swaps, offer>>
    /\ UNCHANGED <<winners, durs, seals, log, life, refuses, cut, acted, promises, wipes>>

\* The disk is lost, notes included.
Wipe(n) ==
    /\ wipes < WipeMax
    /\ wipes' = wipes + 1
    /\ ForgetServer(n)
    /\ log' = [log EXCEPT ![n] = <<>>]
    /\ life' = [life EXCEPT ![n] = @ + 1]
    /\ refuses' = [refuses EXCEPT ![n] = 0]
    /\ cut' = [cut EXCEPT ![n] = FALSE]
    /\ excluded' = [excluded EXCEPT ![n] = {}]
    /\ acted' = [acted EXCEPT ![n] = Nothing]
    /\ IF IsCurrent(n) THEN NoRecord ELSE UNCHANGED <<held, swaps, offer>>
    /\ UNCHANGED <<winners, durs, seals, promises, crashes>>

\* The agent of a primary restarts and adopts its server. It does not know whether its former
\* self sent a swap, so it records D once more: a swap that is on its way compares the old one.
Adopt(p) ==
    /\ IsCurrent(p) /\ HasOwn(epoch)
    /\ change[p] # None /\ change[p].new # D
    /\ IF On("adoption-settles-swaps")
       THEN /\ change' = [change EXCEPT ![p] =
                            [new |-> D, base |-> rev, mark |-> 0, sent |-> TRUE]]
            /\ swaps' = swaps \cup {[epoch |-> epoch, base |-> rev, new |-> D]}
       ELSE /\ change' = [change EXCEPT ![p] = None]
            /\ UNCHANGED swaps
    /\ UNCHANGED <<winners, held, durs, seals, offer, disk, leads, doors, waits, got, source, acted,
                   promises, faults>>

-------------------------------------------------------------------------------
\* There is no primary record: rules 4, 5 and 6

\* At any moment; its holder need not know.
LeaseEnds ==
    /\ held
    /\ NoRecord
    /\ change' = [n \in Node |-> None]
    /\ UNCHANGED <<winners, durs, seals, disk, leads, doors, waits, got, source, acted, promises, faults>>

\* Rule 4: note, stop receiving, publish. The note and the publication are one step here: what
\* happens between them happens before both as well. What it acted on before is refused from now on.
Seal(n) ==
    LET seal == [epoch |-> epoch + 1, life |-> life[n], at |-> End(n)] IN
    /\ ~held /\ epoch < EpochMax
    /\ leads[n] = 0 /\ log[n] # <<>> /\ seals[n] # seal
    /\ refuses[n] <= epoch + 1
    /\ refuses' = IF On("seal-is-noted") THEN [refuses EXCEPT ![n] = epoch + 1] ELSE refuses
    /\ source' = IF On("old-sender-is-refused") THEN [source EXCEPT ![n] = None] ELSE source
    /\ acted' = IF On("seal-is-noted") THEN [acted EXCEPT ![n] = Nothing] ELSE acted
    /\ seals' = [seals EXCEPT ![n] = seal]
    /\ UNCHANGED <<winners, held, durs, swaps, offer, log, life, cut, excluded, server, promises,
                   faults>>

Counts(n) ==
    /\ seals[n] # None
    /\ seals[n].epoch = epoch + 1 \/ ~On("seal-counts-for-its-epoch")
    /\ IF On("lives-are-told-apart")
       THEN <<n, seals[n].life>> \in D.members ELSE n \in Nodes(D.members)
IsBest(n, among) == \A m \in among : ~IsBehind(seals[n].at, seals[m].at)
IsSealed(n) ==
    /\ seals[n] # None
    /\ seals[n].epoch = epoch + 1
    /\ seals[n].life = life[n] \/ ~On("lives-are-told-apart")

Win(n) ==
    /\ winners' = Append(winners, [node |-> n, life |-> life[n]])
    /\ held' = TRUE
    /\ swaps' = {}
    /\ offer' = None
    \* Seals for other epochs are never looked at again.
    /\ seals' = IF On("seal-counts-for-its-epoch") THEN [m \in Node |-> None] ELSE seals

\* Rule 5(b).
Claim(n) ==
    LET counted == {m \in Node : Counts(m)}
        needed == Cardinality(D.members) - D.acks + (IF On("one-seal-more") THEN 1 ELSE 0)
    IN
    /\ ~held /\ epoch < EpochMax /\ leads[n] = 0
    /\ D.acks > 0
    /\ IsSealed(n) /\ n \in counted
    /\ Cardinality(counted) >= needed
    /\ IsBest(n, counted)
    /\ Win(n)
    /\ UNCHANGED <<durs, disk, server, source, acted, promises, faults>>

\* Rule 5(a).
Return(n) ==
    /\ ~held /\ epoch < EpochMax /\ leads[n] = 0
    /\ IF On("lives-are-told-apart") THEN D.primary = Self(n) ELSE D.primary[1] = n
    /\ ~cut[n] \/ ~On("return-needs-an-uncut-log")
    /\ Win(n)
    /\ UNCHANGED <<durs, disk, server, source, acted, promises, faults>>

\* Rule 5(c). Who won an epoch since D was recorded, and could not record its own, held all that counts
\* under D when it won, and nobody has acknowledged anything since.
Inherit(n) ==
    LET since == IF On("heir-won-since-the-record") THEN (D.epoch + 1)..epoch ELSE 1..epoch IN
    /\ ~held /\ epoch < EpochMax /\ leads[n] = 0
    /\ D.acks > 0
    /\ IsSealed(n)
    /\ \E e \in since : winners[e] = [node |-> n, life |-> life[n]]
    /\ ~cut[n] \/ ~On("return-needs-an-uncut-log")
    /\ Win(n)
    /\ UNCHANGED <<durs, disk, server, source, acted, promises, faults>>

\* Rule 6.
ClaimLossy(n) ==
    /\ ~held /\ epoch < EpochMax /\ leads[n] = 0
    /\ D.acks = 0 /\ D # Unknown
    /\ D.lossy \/ DegradedMayLose \/ ~On("degraded-only-returns")
    /\ IsSealed(n) /\ IsBest(n, {m \in Node : IsSealed(m)})
    /\ lost' = (D.lossy \/ DegradedMayLose)
    /\ Win(n)
    /\ UNCHANGED <<durs, disk, server, source, acted, wrote, faults>>

\* The store was restored: the counter of epochs starts above all that any node has seen, and D is
\* unknown until the next primary records its own.
LoseStore ==
    /\ D # Unknown /\ rev < RecordMax
    /\ NoRecord
    /\ durs' = Append(durs, Unknown)
    /\ seals' = [n \in Node |-> None]
    /\ change' = [n \in Node |-> None]
    /\ UNCHANGED <<winners, disk, leads, doors, waits, got, source, acted, promises, faults>>

\* The last words of rule 5: every data node is sealed.
ClaimUnknown(n) ==
    /\ ~held /\ epoch < EpochMax /\ leads[n] = 0
    /\ D = Unknown
    /\ \A m \in Node : IsSealed(m)
    /\ IsBest(n, Node)
    /\ Win(n)
    /\ UNCHANGED <<durs, disk, server, source, acted, promises, faults>>

-------------------------------------------------------------------------------
\* Rule 3: from the claim to the open doors

\* The epoch row, doors closed. A winner refuses older epochs first, receives nothing any more,
\* and counts no acknowledgement that was given to it before.
Begin(n) ==
    /\ held /\ holder = n /\ winners[epoch].life = life[n]
    /\ leads[n] = 0 /\ ~Holds(n, Row(epoch))
    /\ log' = [log EXCEPT ![n] = Append(@, Row(epoch))]
    /\ refuses' = [refuses EXCEPT ![n] = epoch]
    /\ leads' = [leads EXCEPT ![n] = epoch]
    /\ waits' = [waits EXCEPT ![n] = Acks]
    /\ got' = [got EXCEPT ![n] = Forgotten]
    /\ source' = [source EXCEPT ![n] = None]
    /\ acted' = [acted EXCEPT ![n] = Nothing]
    /\ UNCHANGED <<store, life, cut, excluded, doors, change, promises, faults>>

\* Its own D is sent. Whoever will not be in it cannot acknowledge: it is locked out, or has noted
\* this epoch. Without enough holders of the row only a degradation can be recorded.
RecordOwn(p) ==
    LET e == leads[p]
        holders == {n \in Node : Follows(n, p, e) /\ Holds(n, Row(e))}
        quiet == {n \in Node : n \in excluded[p] \/ IsToldSilently(p, n, e)}
        Record(acks, members) == [epoch |-> e, primary |-> Self(p), acks |-> acks,
                                  members |-> members, lossy |-> Acks = 0]
    IN
    /\ IsCurrent(p) /\ ~HasOwn(e) /\ rev < RecordMax
    /\ Acks = 0 \/ ~On("others-are-kept-out") \/ Node \ {p} \subseteq holders \cup quiet
    /\ \E d \in {Record(Acks, {Self(n) : n \in holders})} \cup
               (IF MayDegrade THEN {Record(0, {})} ELSE {}) :
        /\ Cardinality(d.members) >= d.acks
        /\ LET swap == [epoch |-> e, base |-> rev, new |-> IF d.acks = 0
                            THEN [d EXCEPT !.members = {}] ELSE d] IN
            /\ swap \notin swaps
            /\ swaps' = swaps \cup {swap}
    /\ UNCHANGED <<winners, held, durs, seals, offer, disk, server, source, acted, promises, faults>>

OpenDoors(p) ==
    /\ IsCurrent(p) /\ doors[p] = "closed"
    /\ HasOwn(leads[p]) \/ ~On("opens-after-its-record")
    /\ doors' = [doors EXCEPT ![p] = "open"]
    /\ UNCHANGED <<store, disk, leads, waits, got, change, source, acted, promises, faults>>

-------------------------------------------------------------------------------
\* Rule 2: every change of D is one transition

\* The transaction of a swap: the primary record and D are what its sender saw.
ApplySwap == \E swap \in swaps :
    /\ held /\ swap.epoch = epoch /\ swap.base = rev
    /\ durs' = Append(durs, swap.new)
    /\ swaps' = {}
    /\ UNCHANGED <<winners, held, seals, offer, disk, server, source, acted, promises, faults>>

\* Locked out, and every connection cut: it can acknowledge nothing any more.
Exclude(p, n) ==
    /\ IsCurrent(p) /\ n # p /\ n \notin excluded[p]
    /\ IF HasOwn(leads[p])
       THEN /\ change[p] = None
            /\ \/ n \in Nodes(Own(leads[p]).members)
               \/ Own(leads[p]).acks < Acks /\ ~IsToldSilently(p, n, leads[p])
       ELSE ~IsToldSilently(p, n, leads[p])
    /\ excluded' = [excluded EXCEPT ![p] = @ \cup {n}]
    /\ UNCHANGED <<store, log, life, refuses, cut, server, source, acted, promises, faults>>

\* Let back in: D names it, or it has read a record that does not and is switched off.
Admit(p, n) ==
    /\ IsCurrent(p) /\ n \in excluded[p] /\ change[p] = None
    /\ IF HasOwn(leads[p])
       THEN \/ Names(Own(leads[p]), n)
            \/ acted[n].rev >= OwnRevision(leads[p]) /\ ~ShowsAcks(p, n)
       ELSE IsToldSilently(p, n, leads[p])
    /\ excluded' = [excluded EXCEPT ![p] = @ \ {n}]
    /\ UNCHANGED <<store, log, life, refuses, cut, server, source, acted, promises, faults>>

\* What D may become: a follower comes in, a member goes out, another k. From k = 0 the members come in
\* first, then k is raised.
Wanted(p) ==
    LET d == Own(leads[p])
        CanJoin(n) == Follows(n, p, leads[p]) /\ n \notin excluded[p] /\ End(n)[1] = leads[p]
        With(n) == {m \in d.members : m[1] # n} \cup {Self(n)}
        Without(n) == {m \in d.members : m[1] # n}
    IN
    {[d EXCEPT !.members = With(n)] : n \in {m \in Node : CanJoin(m) /\ Self(m) \notin d.members}}
    \cup {[d EXCEPT !.members = Without(n)] : n \in Nodes(d.members)}
    \cup {[d EXCEPT !.acks = k] : k \in 1..Acks}
    \cup (IF MayDegrade THEN {[d EXCEPT !.acks = 0, !.members = {}]} ELSE {})

\* Who goes out is locked out first; commits wait for what either record asks. Then the marker: the
\* end of the log.
Mark(p) ==
    /\ IsCurrent(p) /\ doors[p] = "open" /\ HasOwn(epoch) /\ change[p] = None /\ rev < RecordMax
    /\ \E new \in Wanted(p) :
        /\ new # D /\ Cardinality(new.members) >= new.acks
        /\ On("joint-phase") => Nodes(D.members) \ Nodes(new.members) \subseteq excluded[p]
        /\ new.acks > D.acks /\ On("others-are-kept-out") => \A n \in Node \ {p} :
            n \in Nodes(new.members) \cup excluded[p] \/ IsToldSilently(p, n, epoch)
        /\ change' = [change EXCEPT ![p] =
                        [new |-> new, base |-> rev, mark |-> Len(log[p]), sent |-> FALSE]]
        /\ waits' = [waits EXCEPT ![p] = Max(@, new.acks)]
    /\ UNCHANGED <<store, disk, leads, doors, got, source, acted, promises, faults>>

\* The marker is held under D': the swap is sent, once or again.
SendSwap(p) ==
    LET new == change[p].new
        holders == {m \in new.members : /\ life[m[1]] = m[2]
                                        /\ Follows(m[1], p, leads[p])
                                        /\ Len(log[m[1]]) >= change[p].mark}
    IN
    /\ IsCurrent(p) /\ change[p] # None /\ ~change[p].sent /\ change[p].base = rev
    /\ On("joint-phase") => Cardinality(holders) >= new.acks
    /\ change' = [change EXCEPT ![p].sent = TRUE]
    /\ swaps' = swaps \cup {[epoch |-> epoch, base |-> rev, new |-> new]}
    /\ UNCHANGED <<winners, held, durs, seals, offer, disk, leads, doors, waits, got, source, acted,
                   promises, faults>>

\* Given up before its swap is sent; after that only another record ends it.
EndChange(p) ==
    /\ IsCurrent(p) /\ change[p] # None
    /\ ~change[p].sent \/ change[p].base < rev \/ ~On("sent-swaps-bind")
    /\ change' = [change EXCEPT ![p] = None]
    /\ UNCHANGED <<store, disk, leads, doors, waits, got, source, acted, promises, faults>>

\* Fewer acknowledgements are waited for only once the record says so.
Relax(p) ==
    LET k == IF On("degradation-is-recorded-first") THEN Own(leads[p]).acks ELSE 0 IN
    /\ leads[p] # 0 /\ HasOwn(leads[p]) /\ change[p] = None
    /\ waits[p] > k
    /\ waits' = [waits EXCEPT ![p] = k]
    /\ UNCHANGED <<store, disk, leads, doors, got, change, source, acted, promises, faults>>

-------------------------------------------------------------------------------
\* The record names another node

\* Follow the primary of epoch e, acknowledging if d says so: note first, then point there. A
\* server that points there already is only switched; another attaches only with a prefix, and only
\* if it is let in.
FollowBy(n, e, r) ==
    LET p == winners[e].node
        d == durs[r]
        acks == d.epoch = e /\ Names(d, n)
        new == [node |-> p, epoch |-> e, acks |-> acks]
        isPrefix == IsPrefix(log[n], log[p])
        isThere == source[n] # None /\ source[n].node = p /\ isPrefix
        isLetIn == n \notin excluded[p] /\ isPrefix
    IN
    /\ p # n /\ leads[n] = 0 /\ e >= refuses[n]
    /\ refuses' = IF On("follower-notes") THEN [refuses EXCEPT ![n] = e] ELSE refuses
    /\ source' = [source EXCEPT ![n] = IF isThere \/ isLetIn THEN new ELSE None]
    /\ got' = IF acks /\ isLetIn /\ leads[p] # 0
              THEN [got EXCEPT ![p][n] = Max(@, Len(log[n]))] ELSE got

\* A node's status names the record by which it acts: the action may not be performed yet.
Read(n) ==
    /\ held /\ holder # n /\ acted[n].epoch = epoch /\ acted[n].rev < rev
    /\ acted' = [acted EXCEPT ![n].rev = rev]
    /\ UNCHANGED <<store, disk, server, source, promises, faults>>

Follow(n) ==
    /\ held
    /\ FollowBy(n, epoch, rev)
    /\ acted' = [acted EXCEPT ![n] = [epoch |-> epoch, rev |-> rev]]
    /\ UNCHANGED <<store, log, life, cut, excluded, leads, doors, waits, change, promises, faults>>

\* A plan of an earlier view that is carried out late: only the durable note stands in its way.
FollowLate(n) == \E e \in 1..acted[n].epoch :
    /\ source[n] = None
    /\ HasOwn(e)
    /\ FollowBy(n, e, IF e = acted[n].epoch THEN acted[n].rev ELSE OwnRevision(e))
    /\ UNCHANGED <<store, log, life, cut, excluded, leads, doors, waits, change, acted, promises,
                   faults>>

\* An old primary whose log left the history: what the engine did not commit is cut at the start.
\* It had committed all that stood before the row of the epoch that it led.
Cut(n) ==
    LET p == holder
        last == End(n)[1]
        row == CHOOSE i \in 1..Len(log[n]) : log[n][i] = Row(last)
        common == Common(log[n], log[p])
        least == IF On("cut-spares-what-was-before") THEN row - 1 ELSE 0
    IN
    /\ held /\ p # n /\ leads[p] = epoch /\ leads[n] = 0 /\ source[n] = None
    /\ log[n] # <<>> /\ ~IsPrefix(log[n], log[p])
    /\ winners[last].node = n /\ Holds(n, Row(last))
    /\ \E keep \in least..common :
        /\ log' = [log EXCEPT ![n] = SubSeq(@, 1, keep)]
        /\ keep < Len(log[n])
    /\ cut' = [cut EXCEPT ![n] = TRUE]
    /\ UNCHANGED <<store, life, refuses, excluded, server, source, acted, promises, faults>>

\* What a log has beyond the history is taken back row by row; the life goes on, and the right of 5(a)
\* ends as by a cut.
Rewind(n) ==
    LET p == holder IN
    /\ held /\ p # n /\ leads[p] = epoch /\ leads[n] = 0
    /\ refuses[n] <= epoch /\ ~IsPrefix(log[n], log[p])
    /\ log' = [log EXCEPT ![n] = SubSeq(@, 1, Common(@, log[p]))]
    /\ refuses' = [refuses EXCEPT ![n] = epoch]
    /\ cut' = [cut EXCEPT ![n] = TRUE]
    /\ source' = [source EXCEPT ![n] = None]
    /\ UNCHANGED <<store, life, excluded, server, acted, promises, faults>>

\* No data, or a log that is no prefix: a copy of the primary's, or of a node that follows it, under a
\* new life.
Clone(n) == \E donor \in Node \ {n} :
    /\ held /\ holder # n /\ leads[holder] = epoch /\ leads[n] = 0 /\ life[n] < LifeMax
    /\ log[n] = <<>> \/ ~IsPrefix(log[n], log[holder])
    /\ donor = holder \/ (Follows(donor, holder, epoch) /\ End(donor)[1] = epoch)
    /\ log' = [log EXCEPT ![n] = log[donor]]
    /\ life' = [life EXCEPT ![n] = @ + 1]
    /\ cut' = [cut EXCEPT ![n] = FALSE]
    /\ excluded' = [excluded EXCEPT ![n] = {}]
    /\ source' = [source EXCEPT ![n] = None]
    /\ UNCHANGED <<store, refuses, server, acted, promises, faults>>

-------------------------------------------------------------------------------
\* A planned hand-over

\* The doors are closed and no commit is in flight; the lead is offered at the log's end.
Offer(p, n) ==
    /\ IsCurrent(p) /\ doors[p] = "open" /\ change[p] = None /\ offer = None
    /\ HasOwn(epoch) /\ D.acks > 0 /\ Self(n) \in D.members
    /\ \A i \in 1..Len(log[p]) :
        log[p][i][1] = epoch /\ log[p][i][2] # 0 => log[p][i] \in acked
    /\ doors' = [doors EXCEPT ![p] = "offered"]
    /\ offer' = [epoch |-> epoch, target |-> n, length |-> Len(log[p])]
    /\ UNCHANGED <<winners, held, durs, seals, swaps, disk, leads, waits, got, change, source, acted,
                   promises, faults>>

\* One transaction: the record moves if the offer stands. The winner refuses older epochs when it
\* begins: a target that refused them before, and whose claim came too late, could follow nobody.
TakeOver(n) ==
    /\ held /\ epoch < EpochMax /\ offer # None /\ offer.epoch = epoch /\ offer.target = n
    /\ leads[n] = 0 /\ Len(log[n]) >= offer.length
    /\ Win(n)
    /\ UNCHANGED <<durs, disk, server, source, acted, promises, faults>>

\* Taken back in a transaction; only then the doors open again.
Withdraw(p) ==
    /\ doors[p] = "offered" /\ IsCurrent(p) /\ offer # None /\ offer.epoch = epoch
    /\ offer' = IF On("withdrawn-before-reopened") THEN None ELSE offer
    /\ doors' = [doors EXCEPT ![p] = "open"]
    /\ UNCHANGED <<winners, held, durs, seals, swaps, disk, leads, waits, got, change, source, acted,
                   promises, faults>>

-------------------------------------------------------------------------------
Takes(action) == action \notin Idle

Step ==
    \/ LeaseEnds
    \/ ApplySwap
    \/ Takes("LoseStore") /\ LoseStore
    \/ \E n \in Node :
        \/ Write(n) \/ Receive(n)
        \/ Restart(n)
        \/ Seal(n) \/ Claim(n) \/ ClaimLossy(n) \/ ClaimUnknown(n)
        \/ Begin(n) \/ Follow(n)
        \/ Takes("RecordOwn") /\ (RecordOwn(n) \/ OpenDoors(n))
        \/ Takes("Return") /\ Return(n)
        \/ Takes("Inherit") /\ Inherit(n)
        \/ Takes("Wipe") /\ Wipe(n)
        \/ Takes("Adopt") /\ Adopt(n)
        \/ Takes("Mark") /\ (Mark(n) \/ SendSwap(n) \/ EndChange(n) \/ Read(n))
        \/ Takes("Relax") /\ Relax(n)
        \/ Takes("FollowLate") /\ FollowLate(n)
        \/ Takes("Cut") /\ (Cut(n) \/ Rewind(n))
        \/ Takes("Clone") /\ Clone(n)
        \/ Takes("Offer") /\ (TakeOver(n) \/ Withdraw(n) \/ \E m \in Node : Offer(n, m))
        \/ Takes("Exclude") /\ \E m \in Node : Exclude(n, m) \/ Admit(n, m)

Next == Step /\ acked' = acked \cup Acknowledged'

Spec == Init /\ [][Next]_vars

-------------------------------------------------------------------------------
\* What must hold, by the names of the simulator's checks

OnePrimaryPerEpoch ==
    /\ \A p, q \in Node : p # q /\ leads[p] # 0 => leads[p] # leads[q]
    /\ \A p \in Node : leads[p] # 0 => winners[leads[p]].node = p
    /\ \A n \in Node : \A i \in 2..Len(log[n]) : log[n][i - 1][1] <= log[n][i][1]

\* Whoever can acknowledge to open doors is a recorded member, and enough are waited for.
AcksComeFromTheRecordedSet == \A p \in Node : leads[p] # 0 /\ doors[p] = "open" =>
    /\ HasOwn(leads[p])
    /\ waits[p] >= Own(leads[p]).acks
    /\ waits[p] > 0 => \A n \in Node :
        /\ IsSwitchedOn(n) /\ source[n].node = p
        /\ n \notin excluded[p] /\ IsPrefix(log[n], log[p])
        => Self(n) \in Own(leads[p]).members

OldEpochsAreRefused == \A n \in Node : source[n] # None => source[n].epoch >= refuses[n]

\* Where an epoch begins in any log, everything acknowledged in older ones stands before it.
NoAcknowledgedWriteLost == lost \/ \A write \in acked : \A n \in Node : \A i \in 1..Len(log[n]) :
    log[n][i][2] = 0 /\ log[n][i][1] > write[1] => \E j \in 1..(i - 1) : log[n][j] = write

ReplicaIsAPrefix == \A n \in Node :
    source[n] # None /\ source[n].epoch = leads[source[n].node]
        => IsPrefix(log[n], log[source[n].node])
===============================================================================
