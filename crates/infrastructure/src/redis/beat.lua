-- Says that a process lives, and gives how many do. KEYS[1]: all of them, with when each counts as gone; ARGV: its name, and
-- how long it counts as living, in microseconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], math.ceil(tonumber(ARGV[2]) / 1000) + 1)
return redis.call('ZCARD', KEYS[1])
