"""A suite for your own proposer: `check_proposer` proves on small models that the output follows the law with it."""

from rapid_integrations.proposers.suite.check import check_proposer

__all__ = ["check_proposer"]
