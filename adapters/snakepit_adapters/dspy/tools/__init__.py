"""The tools, by what they are about.

None of these modules imports DSPy when it is imported: the worker has to know the tools before it
has loaded the framework.  By the time a tool runs, the adapter's lifespan has imported everything,
so that the imports inside of the methods only look modules up.
"""
