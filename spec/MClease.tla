---- MODULE MClease ----
EXTENDS lease, TLC
Symmetry == Permutations(Member)
====
