-- Carries out a tenant's orders in one step: KEYS are its counters, ARGV is the process's name and then some words for each:
--   'rate',   units, period in microseconds, want, owed
--   'places', limit, want, busy, held for in microseconds
--   'funds',  limit, mine, known, want, busy, held for in microseconds
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

-- What is spent in all is kept as '=', and by each process's name what it holds, until when, and what of what is spent it has
-- told: 'held until told'. The name stays for a day after it was last heard of, so that nothing is told twice.
local function funds(key, limit, mine, known, want, busy, held_for)
    local spent, others, told = 0, 0, 0
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
        if all[i] == '=' then
            spent = tonumber(all[i + 1])
        else
            local held, ends, said = string.match(all[i + 1], '^(%S+) (%S+) (%S+)$')
            if all[i] == node then
                told = tonumber(said)
            elseif tonumber(ends) > now then
                others = others + tonumber(held)
            elseif tonumber(ends) + 86400000000 < now then
                redis.call('HDEL', key, all[i])
            end
        end
    end
    spent = math.max(spent + math.max(0, mine - told), known)
    local grant = math.max(busy, math.min(want, math.max(0, limit - spent - others)))
    redis.call('HSET', key, '=', string.format('%.0f', spent))
    redis.call('HSET', key, node, string.format('%.0f %.17g %.0f', grant, now + held_for, math.max(mine, told)))
    -- Longer than a month; what is never spent anew is asked of the ledger.
    redis.call('PEXPIRE', key, 3456000000)
    return grant, math.max(0, limit - spent - others - grant), 0
end

local a = 2
for _, key in ipairs(KEYS) do
    local function word(nth) return tonumber(ARGV[a + nth]) end
    local grant, left, wait
    if ARGV[a] == 'rate' then
        grant, left, wait = rate(key, word(1), word(2), word(3), word(4))
        a = a + 5
    elseif ARGV[a] == 'places' then
        grant, left, wait = places(key, word(1), word(2), word(3), word(4))
        a = a + 5
    else
        grant, left, wait = funds(key, word(1), word(2), word(3), word(4), word(5), word(6))
        a = a + 7
    end
    out[#out + 1] = grant
    out[#out + 1] = left
    out[#out + 1] = wait
end
return out
