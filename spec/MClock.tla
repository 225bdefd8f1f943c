---- MODULE MClock ----
EXTENDS lock, TLC
Symmetry == Permutations(Client)
====
