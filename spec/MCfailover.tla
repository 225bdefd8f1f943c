------------------------------ MODULE MCfailover ------------------------------
(* For TLC: nodes are interchangeable; and stories to which a search may be confined. *)
EXTENDS failover, TLC

Symmetry == Permutations(Node)

Winner(e) == IF e <= epoch THEN winners[e].node ELSE None

\* Epoch 2 is won again by the node that led epoch 1.
ReturnsFirst == Winner(2) \in {None, Winner(1)}
\* Epoch 2 is won by another; epoch 3 by the node that led epoch 1.
ReturnsThird == Winner(2) # Winner(1) /\ Winner(3) \in {None, Winner(1)}
\* The store is lost in epoch 2, which another node won.
IsLostSecond == Winner(2) # Winner(1) /\ (D = Unknown => epoch >= 2)
===============================================================================
