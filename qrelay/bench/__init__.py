"""The benchmark: what a service can do, measured from outside.

    load          a target, and the two ways to load it: closed loop and open loop
    sweeps        levels one after another: until throughput is flat, or at given rates
    windows       how long a level is measured: warm-up, windows until stable
    recording     answers on their way into windows
    latencies     quantiles
    usage         what a service used: CPU, memory, batches, queue and compute time
    estimates     95% intervals over windows
    environment   the machine and the versions
    report        what one run found, as JSON; writes the folder of a run
    table, plots  the same for people
    compare       two reports: ratios with intervals

Nothing here knows gRPC or the queue: a target does.
"""
