"""Measuring the quality of answers, and how fast they come, beside the methods that a user would otherwise pick.

tasks/       benchmarks behind one protocol; metrics: their scores
methods      what is compared; contexts: what a drafter may be given to read in place of what retrieval finds
runner       tasks x methods; predictions: the file of answers, with which a run goes on
statistics   paired bootstrap; summary: a run in figures; results_table: for a terminal
studies      the paper's experiments; figures: their pictures
questions, timing: what `rapid_integrations.benchmarks` shares
"""
