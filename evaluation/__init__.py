"""The one evaluation of whatever answers with Predictions. Never imports torch.

run: predict all, score, print, write. metrics: what is scored, each metric named once, and the report by age group.
agreement: may one model stand for another, within limits? comparison: evaluations side by side, from their CSVs.
diagnosis/: calibration, error by age, confusions, subgroups, worst faces, drawn. text, plots, intervals: how all show.
"""
