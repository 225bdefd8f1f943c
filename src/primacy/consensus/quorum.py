"""Majorities: how many, and how far a majority has come."""

from collections.abc import Iterable


def majority_of(voters_count: int) -> int:
    """The smallest number of voters such that any two sets of that many share a member."""
    return voters_count // 2 + 1


def reached_by_majority(values: Iterable[int]) -> int:
    """The greatest value that a majority has reached, given one value for every voter."""
    ordered = sorted(values, reverse=True)
    return ordered[len(ordered) // 2]


def heard_by_majority_s(moments_s: Iterable[float]) -> float:
    """The latest moment since which a majority has been heard, given one for every voter."""
    ordered = sorted(moments_s, reverse=True)
    return ordered[len(ordered) // 2]
