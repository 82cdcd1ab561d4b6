"""Measure answer quality and speed, beside the methods that a user would otherwise pick.

tasks/       benchmarks behind one protocol; metrics: their scores
methods      the compared methods; contexts: what a drafter may read instead of the retrieved chunks
runner       tasks x methods; predictions: the file of answers, from which a run resumes
statistics   paired bootstrap; summary: the figures of a run; results_table: tables for a terminal
studies      the paper's experiments; figures: their pictures
questions, timing: shared with `rapid_integrations.benchmarks`
"""
