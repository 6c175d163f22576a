-- Carries out a tenant's orders in one step: KEYS are its counters, ARGV is the process's name and then five words for each:
--   'rate',   units, period in microseconds, want, owed
--   'places', limit, want, busy, held for in microseconds
-- Gives three numbers for each: granted, left, microseconds until the next one.
-- The clock is this server's, so that the processes' own need not agree.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local node = ARGV[1]
local out = {}

-- What is owed of a rate is kept as units, with the moment it was so many: 'owed at'.
local function rate(key, units, period, want, more)
    local owed, at = 0, now
    local kept = redis.call('GET', key)
    if kept then
        local o, a = string.match(kept, '^(%S+) (%S+)$')
        owed, at = tonumber(o), tonumber(a)
    end
    if now > at then
        owed = math.max(0, owed - (now - at) * units / period)
        at = now
    end
    owed = math.max(0, owed + more)
    -- Sums of fractions may fall short of a whole one by a hair.
    local left = math.max(0, math.floor(units - owed + 1e-6))
    local grant = math.min(want, left)
    owed = owed + grant
    left = left - grant
    local wait = 0
    if left < 1 then wait = math.ceil(math.max(0, owed + 1 - units) * period / units) end
    if owed > 0 then
        -- Forgotten when it is full again.
        redis.call('SET', key, string.format('%.17g %.17g', owed, at), 'PX', math.ceil(owed * period / units / 1000) + 1)
    elseif kept then
        redis.call('DEL', key)
    end
    return grant, left, wait
end

-- Who holds how many places is kept by the process's name: 'count until'.
local function places(key, limit, want, busy, held_for)
    local others = 0
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
        if all[i] ~= node then
            local count, ends = string.match(all[i + 1], '^(%S+) (%S+)$')
            if tonumber(ends) > now then
                others = others + tonumber(count)
            else
                redis.call('HDEL', key, all[i])
            end
        end
    end
    local grant = math.max(busy, math.min(want, math.max(0, limit - others)))
    if grant > 0 then
        redis.call('HSET', key, node, string.format('%d %.17g', grant, now + held_for))
        redis.call('PEXPIRE', key, math.ceil(held_for / 1000) + 1)
    else
        redis.call('HDEL', key, node)
    end
    return grant, math.max(0, limit - others - grant), 0
end

for i, key in ipairs(KEYS) do
    local a = 2 + (i - 1) * 5
    local b, c, d, e = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
    local grant, left, wait
    if ARGV[a] == 'rate' then
        grant, left, wait = rate(key, b, c, d, e)
    else
        grant, left, wait = places(key, b, c, d, e)
    end
    out[#out + 1] = grant
    out[#out + 1] = left
    out[#out + 1] = wait
end
return out
