"""Where tolerances come from: the noise of honest runs, measured on this benchmark.

The trusted loop is run in the ways in which honest submissions differ (`variants`) on the same challenges,
and each is compared with the benchmark's own reference by the very functions that judge a submission
(`measure`). How far that noise goes at a stated rate is fitted (`tail`), and makes the tolerances
(`conclude`).
"""
