-- wrk's script: DEPTH pipelined GETs a turn (the first argument, 1 by default), and the run's figures as one JSON line.
-- The requests are built once, in init; wrk then sends the same bytes over and over without asking Lua again.

function init(args)
  local one = wrk.format("GET")
  local all = string.rep(one, tonumber(args[1]) or 1)
  wrk.format = function() return all end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "bytes": %d, "p50_us": %d, "p99_us": %d, "failed": %d, "refused": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
