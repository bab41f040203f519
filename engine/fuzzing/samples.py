"""A few frames of each venue, in the form of its documentation, to mutate. HTX's are shown before compression."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from engine.captures import read_capture

SAMPLES: dict[str, list[str]] = {
    "binance": [
        '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1700000000123,"s":"BTCUSDT","U":157,"u":160,'
        '"b":[["60000.01000000","1.50000000"],["59999.00000000","0.00000000"]],"a":[["60000.02000000","0.25000000"]]}}',
        '{"stream":"btcusdt@bookTicker","data":{"u":160,"s":"BTCUSDT","b":"60000.01","B":"1.5","a":"60000.02",'
        '"A":"0.25"}}',
        '{"stream":"ethusdt@trade","data":{"e":"trade","E":1700000000125,"s":"ETHUSDT","t":12345,"p":"3000.10",'
        '"q":"0.5","T":1700000000124,"m":true,"M":true}}',
        '{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1700000000125123,"s":"BTCUSDT","a":26129,"p":"60000.01",'
        '"q":"0.1","f":100,"l":105,"T":1700000000124123,"m":true,"M":true}}',
        '{"e":"depthUpdate","E":1700000000123456,"s":"BTCUSDT","U":161,"u":161,"b":[],"a":[["60000.02","0"]]}',
        '{"u":161,"s":"BTCUSDT","b":"60000.01","B":"1.5","a":"60000.03","A":"2"}',
        '{"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1532949473542,"s":"BTCUSDT","U":161,"u":162,'
        '"b":[["0.0024","10",[]]],"a":[["0.0026","100",[]]]}}',
        '{"stream":"!bookTicker","data":{"u":161,"s":"BTCUSDT","b":"60000.01","B":"1.5","a":"60000.03","A":"2"}}',
        '{"result":null,"id":1}',
        '{"error":{"code":2,"msg":"Invalid request: unknown variant"},"id":7}',
        '{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":1,"x":false}}}',
        '{"stream":"btcusdt@depth5","data":{"lastUpdateId":160,"bids":[["1","2"]],"asks":[["3","4"]]}}',
        '{"lastUpdateId":160,"bids":[["60000.01","1"]],"asks":[]}',
        '[{"e":"24hrMiniTicker","E":1,"s":"BTCUSDT","c":"1"}]',
        '{"e":"serverShutdown","E":1770123456789}',
    ],
    "binance_perpetual": [
        '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1700000000123,"T":1700000000120,"s":"BTCUSDT",'
        '"U":200,"u":220,"pu":199,"b":[["60000.1","3"],["59999.9","0"]],"a":[["60000.2","1.5"]]}}',
        '{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":220,"s":"BTCUSDT","b":"60000.1","B":"3",'
        '"a":"60000.2","A":"1.5","T":1700000000122,"E":1700000000123}}',
        '{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1700000000125,"a":99,"s":"BTCUSDT","p":"60000.2",'
        '"q":"0.5","f":1,"l":2,"T":1700000000124,"m":false}}',
        '{"stream":"btcusdt@trade","data":{"e":"trade","E":1700000000125,"T":1700000000124,"s":"BTCUSDT","t":77,'
        '"p":"60000.2","q":"0.5","X":"MARKET","m":true}}',
        '{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":221,"u":221,"pu":220,"b":[],"a":[["60000.2","0"]]}',
        '{"stream":"btcusdt@depth5@100ms","data":{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,'
        '"b":[["1","2"]],"a":[]}}',
        '{"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate","E":1,"s":"BTCUSDT","p":"1"}}',
        '{"result":null,"id":1}',
        '{"code":-1121,"msg":"Invalid symbol."}',
    ],
    "kraken_v1": [
        '[1920,{"as":[["5541.30000","2.50700000","1534614248.123678"],["5541.80000","0.33000000","1534614098.345543"]],'
        '"bs":[["5541.20000","1.52900000","1534614248.765567"]]},"book-10","XBT/USD"]',
        '[1920,{"a":[["5541.30000","2.50700000","1534614248.456738"]],"c":"974942666"},"book-10","XBT/USD"]',
        '[1920,{"a":[["5541.30000","0.00000000","1534614335.345903"]]},{"b":[["5541.30000","3.00000000",'
        '"1534614335.345903","r"]],"c":"974942666"},"book-10","XBT/USD"]',
        '[337,[["5541.20000","0.15850568","1534614057.321597","s","l",""],["6060.00000","0.02455000",'
        '"1534614057.324998","b","m",""]],"trade","XBT/USD"]',
        '[340,{"a":["5525.40000",1,"1.000"],"b":["5525.10000",1,"1.000"]},"ticker","XBT/USD"]',
        '[42,["1542057314.748456","1542057360.435743","3586.7"],"ohlc-5","XBT/USD"]',
        '{"event":"heartbeat"}',
        '{"connectionID":8628615390848610000,"event":"systemStatus","status":"online","version":"1.0.0"}',
        '{"channelID":1920,"channelName":"book-10","event":"subscriptionStatus","pair":"XBT/USD","reqid":4,'
        '"status":"subscribed","subscription":{"depth":10,"name":"book"}}',
        '{"errorMessage":"Currency pair not supported","event":"subscriptionStatus","status":"error"}',
        '{"event":"pong","reqid":42}',
        '[[{"TDLH43":{"cost":"1","type":"sell"}}],"ownTrades",{"sequence":2948}]',
    ],
    "okx": [
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["8476.98","415","0","13"],'
        '["8477","7","0","2"]],"bids":[["8476.97","256","0","12"]],"ts":"1597026383085","checksum":-855196043,'
        '"prevSeqId":-1,"seqId":123456}]}',
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[["8477","0","0","0"]],'
        '"bids":[],"ts":"1597026383185","checksum":0,"prevSeqId":123456,"seqId":123457}]}',
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[],"bids":[],'
        '"ts":"1597026383285","prevSeqId":123457,"seqId":123457}]}',
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[["8478","1","0","1"]],'
        '"bids":[],"ts":"1597026383285","checksum":-1404728636}]}',
        '{"arg":{"channel":"books5","instId":"ETH-USDT"},"data":[{"asks":[["111.06","5","0","2"]],"bids":[["111.05","57",'
        '"0","2"]],"instId":"ETH-USDT","ts":"1670324386802","seqId":363996337}]}',
        '{"arg":{"channel":"books-l2-tbt","instId":"ETH-USDT"},"action":"update","data":[{"asks":[],"bids":[["111","1","0",'
        '"1"]],"ts":"1670324386902","prevSeqId":363996337,"seqId":363996338}]}',
        '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"130639474",'
        '"px":"42219.9","sz":"0.12060306","side":"buy","ts":"1630048897897","count":"3"}]}',
        '{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","last":"1"}]}',
        '{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}',
        '{"event":"error","code":"60012","msg":"Invalid request","connId":"a4d3ae55"}',
        '{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade."}',
        "pong",
    ],
    "coinbase_exchange": [
        '{"type":"snapshot","product_id":"BTC-USD","bids":[["10101.10","0.45054140"]],"asks":[["10102.55","0.57753524"]]}',
        '{"type":"l2update","product_id":"BTC-USD","changes":[["buy","10101.80000000","0.162567"],["sell","10102.55","0"]],'
        '"time":"2022-08-04T15:25:05.010758Z"}',
        '{"type":"match","trade_id":10,"maker_order_id":"ac928c66","taker_order_id":"132fb6ae","sequence":50,'
        '"product_id":"BTC-USD","time":"2014-11-07T08:19:27.028459Z","size":"5.23512","price":"400.23","side":"sell"}',
        '{"type":"last_match","trade_id":9,"product_id":"BTC-USD","size":"1","price":"2","side":"buy","time":"x"}',
        '{"type":"subscriptions","channels":[{"name":"level2","product_ids":["BTC-USD"]}]}',
        '{"type":"ticker","sequence":3,"product_id":"BTC-USD","best_bid":"1","best_ask":"2"}',
        '{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}',
        '{"type":"snapshot","product_id":"BTC-USD","bids":[["1","2"]],"asks":[],"time":"0001-01-01T00:00:00.000000Z"}',
        '["match","BTC-USD","25","ac928c66","132fb6ae","5.23","400.23","2014-11-07T08:19:27.028459Z"]',
        '{"type":"error","message":"Failed to subscribe","reason":"level2 requires authentication"}',
    ],
    "kucoin": [
        '{"topic":"/market/level2:BTC-USDT","type":"message","subject":"trade.l2update","data":{"changes":{"asks":[['
        '"18906","0.00331","14103845"],["18907.3","0.58751503","14103844"]],"bids":[["18891.9","0","14103847"]]},'
        '"sequenceEnd":14103847,"sequenceStart":14103844,"symbol":"BTC-USDT","time":1663747970273}}',
        '{"topic":"/market/level2:BTC-USDT","type":"message","subject":"trade.l2update","data":{"changes":{"asks":[],'
        '"bids":[["0","0","14103848"]]},"sequenceEnd":14103848,"sequenceStart":14103848,"symbol":"BTC-USDT"}}',
        '{"topic":"/market/match:BTC-USDT","type":"message","subject":"trade.l3match","data":{"makerOrderId":"a",'
        '"price":"67523","sequence":"11067996711960577","side":"buy","size":"0.003","symbol":"BTC-USDT",'
        '"takerOrderId":"b","time":"1729843222921000000","tradeId":"11067996711960577","type":"match"}}',
        '{"topic":"/market/ticker:BTC-USDT","type":"message","subject":"trade.ticker","data":{"bestAsk":"67218.7",'
        '"bestAskSize":"1.92318539","bestBid":"67218.6","bestBidSize":"0.01045638","price":"67220",'
        '"sequence":"14691455768","size":"0.00004316","time":1729757723612}}',
        '{"topic":"/market/ticker:all","type":"message","subject":"BTC-USDT","data":{"bestAsk":"67218.7",'
        '"bestAskSize":"1.9","bestBid":"67218.6","bestBidSize":"0.01","price":"67220","sequence":"14691455768"}}',
        '{"topic":"/market/candles:BTC-USDT_1min","type":"message","subject":"trade.candles.update","data":{}}',
        '{"id":"hQvf8jkno","type":"welcome"}',
        '{"id":"1545910660739","type":"ack"}',
        '{"id":"1545910590801","type":"pong","timestamp":1764229952405080}',
        '{"id":"1","type":"error","code":404,"data":"topic /market/level9 is not found"}',
    ],
    "htx": [
        '{"ch":"market.btcusdt.depth.step0","ts":1630983549503,"tick":{"bids":[[52690.69,0.36281],[5.2690E+4,1]],'
        '"asks":[[52690.7,9.121E-7],[52691,0.00]],"version":136998124622,"ts":1630983549500}}',
        '{"ch":"market.btcusdt.trade.detail","ts":1630994963175,"tick":{"id":137005445109,"ts":1630994963173,"data":['
        '{"id":137005445109359286410323766,"ts":1630994963173,"tradeId":102523573486,"amount":0.006754,'
        '"price":52648.62,"direction":"buy"}]}}',
        '{"ch":"market.ethusdt.mbp.150","ts":1573199608679,"tick":{"seqNum":1002,"prevSeqNum":1001,"bids":[],"asks":['
        "[645.14,26.755973959140651643],[645.2,0]]}}",
        '{"ch":"market.ethusdt.mbp.150","ts":1573199608779,"tick":{"seqNum":1005,"prevSeqNum":1002,"bids":[[645.1,3]],'
        '"asks":[[645.2,1]]}}',
        '{"id":"id2","rep":"market.ethusdt.mbp.150","status":"ok","ts":1573199608600,"data":{"seqNum":1001,"bids":['
        '[644,2]],"asks":[[645.3,1],[646,0.5]]}}',
        '{"ch":"market.ethusdt.mbp.refresh.20","ts":1573199608679,"tick":{"seqNum":1,"bids":[[1,2]],"asks":[]}}',
        '{"ch":"market.btcusdt.kline.1min","ts":1489474082831,"tick":{"id":1489464480,"amount":0.0}}',
        '{"id":"id1","status":"ok","subbed":"market.btcusdt.depth.step0","ts":1489474081631}',
        '{"status":"error","ts":1494326028889,"id":"id2","err-code":"bad-request","err-msg":"invalid topic"}',
        '{"ping":1492420473027}',
    ],
}
SNAPSHOTS: dict[str, tuple[str, str]] = {
    "binance": (
        "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000",
        '{"lastUpdateId":156,"bids":[["59999.00","1"]],"asks":[["60000.02","1"],["60001","3"]]}',
    ),
    "binance_perpetual": (
        "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000",
        '{"lastUpdateId":199,"E":1,"T":1,"bids":[["59999.9","1"]],"asks":[["60000.2","1"],["60001","3"]]}',
    ),
    "kucoin": (
        "https://api.kucoin.com/api/v3/market/orderbook/level2?symbol=BTC-USDT",
        '{"code":"200000","data":{"time":1,"sequence":"14103842","bids":[["18891.9","1"]],"asks":[["18906","1"]]}}',
    ),
}
"""Where books do not come in the stream: the address of one, and its body, which the samples continue."""
COMPRESSED = frozenset({"htx"})
_PER_CAPTURE = 400


def seeds(venue: str, captures: Path | None = None) -> list[bytes]:
    """A venue's frames, uncompressed: the samples, and some of any recorded traffic in a folder."""
    found = [text.encode() for text in SAMPLES[venue]]
    if captures is not None:
        for path in sorted(captures.glob(f"{_CAPTURED_AS.get(venue, venue)}*.jsonl*")):
            found += list(_recorded(path))
    return found


_CAPTURED_AS = {"binance": "binance_spot", "binance_perpetual": "binance_usdm"}


def _recorded(path: Path) -> Iterator[bytes]:
    taken = 0
    for number, record in enumerate(read_capture(path)):
        if record.kind != "ws_in" or number % 7:
            continue
        frame = record.payload
        frame = gzip.decompress(frame) if frame.startswith(b"\x1f\x8b") else frame
        if len(frame) < 4000:
            yield frame
            taken += 1
            if taken == _PER_CAPTURE:
                return
