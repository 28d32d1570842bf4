"""The benchmark: what a service can do, measured from outside.

    load          a target, and the two ways to load it: closed loop and open loop
    sweeps        levels one after another: until throughput is flat, or at given rates
    trace         arrivals as they were recorded
    windows       how long a level is measured: warm-up, windows until stable
    recording     answers on their way into windows
    latencies     quantiles
    usage         what a service used: CPU, memory, batches, queue and compute time
    estimates     95% intervals over windows
    environment   the machine and the versions
    report        what one run found, as JSON
    table, plots  the same for people
    folder        both in the folder of a run, and one page of HTML
    compare       two reports: ratios with intervals
    sizing        machines, hours and cost from reports

Nothing of these knows gRPC or the queue. What does:

    targets/      the services and the pipeline as targets; data, made or recorded
    data, probe   what is sent; what processes say of themselves
    running       services started here, in any number of replicas
    pipeline, disturb   the pipeline's own measurements; replicas killed and drained
"""
