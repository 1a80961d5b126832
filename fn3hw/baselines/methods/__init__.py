"""What people would use instead of our search, one file each, to compare with.

A file of this package is a method, and its name is the method's: `find_method` imports it when it is asked for, so that
a method may need packages that are not installed otherwise. All get the same `Task`: the search space with the costs
and the ladders of counts that our own search moves along, the budgets, and a number of evaluations. A method is a
generator: it yields states and receives their accuracies. `budgeted` helps those that search for one budget at a time,
`trials` those that ask Optuna.
"""

from fn3hw.baselines.methods.port import Method, Proposals, Proposer, Task, find_method, method_names

__all__ = ["Method", "Proposals", "Proposer", "Task", "find_method", "method_names"]
