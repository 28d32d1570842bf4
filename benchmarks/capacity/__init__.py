"""What an installation can carry, from measured service times by queueing theory; see __main__.

queueing   waiting times of stations with several servers, and throughput of a closed network
stations   the pipeline's stages, NATS, PostgreSQL and the network as stations, from reports
check      the model beside `qrelay bench pipeline` with sleeping services
"""
