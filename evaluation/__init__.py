"""The one evaluation: predict all, score by age group, compare, diagnose, draw. Never imports torch."""
