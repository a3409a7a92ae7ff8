"""Emoji by their codes, such as `:wave:`. Pure."""

from __future__ import annotations

import re

# The codes that chats have in common.
_LISTED = """
+1 👍 -1 👎 100 💯 alarm 🚨 anger 💢 angry 😠 ant 🐜 apple 🍎 art 🎨 astonished 😲 avocado 🥑
baby 👶 balloon 🎈 banana 🍌 bar_chart 📊 battery 🔋 beach ⛱️ bear 🐻 bee 🐝 beer 🍺 beers 🍻
bell 🔔 bike 🚲 bird 🐦 birthday 🎂 blue_heart 💙 blush 😊 bomb 💣 book 📖 boom 💥 bow 🙇 brain 🧠
bread 🍞 broken_heart 💔 bug 🐛 bulb 💡 bus 🚌 butterfly 🦋 cake 🍰 calendar 📅 camera 📷
candle 🕯️ car 🚗 cat 🐱 chart 📈 check ✅ checkered_flag 🏁 cheese 🧀 cherries 🍒 chicken 🐔
chocolate 🍫 christmas_tree 🎄 clap 👏 clipboard 📋 clock 🕐 cloud ☁️ clown 🤡 coffee ☕
cold_sweat 😰 computer 💻 confused 😕 construction 🚧 cookie 🍪 cool 😎 cow 🐮 crab 🦀
croissant 🥐 crown 👑 cry 😢 crystal_ball 🔮 cucumber 🥒 dancer 💃 dart 🎯 dash 💨 deer 🦌
dizzy 💫 dog 🐶 dolphin 🐬 door 🚪 dove 🕊️ dragon 🐉 droplet 💧 duck 🦆 eagle 🦅 earth 🌍 egg 🥚
elephant 🐘 email 📧 exclamation ❗ expressionless 😑 eyes 👀 facepalm 🤦 factory 🏭 fire 🔥
fireworks 🎆 fish 🐟 flag 🚩 flushed 😳 fork 🍴 fox 🦊 frog 🐸 frowning ☹️ fries 🍟 gear ⚙️
gem 💎 ghost 👻 gift 🎁 globe 🌐 goat 🐐 grapes 🍇 green_heart 💚 grimacing 😬 grin 😁 grinning 😀
guitar 🎸 hammer 🔨 handshake 🤝 hatching_chick 🐣 headphones 🎧 hear_no_evil 🙉 heart ❤️
heart_eyes 😍 hedgehog 🦔 hippo 🦛 honey 🍯 horse 🐴 hospital 🏥 hot_pepper 🌶️ hotdog 🌭
hourglass ⌛ house 🏠 hug 🤗 hugging 🤗 icecream 🍦 inbox 📥 innocent 😇 iphone 📱 joy 😂 key 🔑
keyboard ⌨️ kiss 💋 kiwi 🥝 koala 🐨 laughing 😆 lemon 🍋 lion 🦁 link 🔗 lizard 🦎 lock 🔒
lollipop 🍭 loudspeaker 📢 mag 🔍 magnet 🧲 mailbox 📫 mango 🥭 map 🗺️ mask 😷 medal 🏅 memo 📝
metal 🤘 microphone 🎤 microscope 🔬 money 💰 monkey 🐒 moon 🌙 mountain ⛰️ mouse 🐭 movie 🎬
muscle 💪 mushroom 🍄 musical_note 🎵 nerd 🤓 neutral 😐 newspaper 📰 no_entry ⛔ notes 🎶
octopus 🐙 ok 🆗 ok_hand 👌 onion 🧅 open_mouth 😮 orange 🍊 outbox 📤 owl 🦉 package 📦
paintbrush 🖌️ palm_tree 🌴 panda 🐼 paperclip 📎 parrot 🦜 party 🥳 partying 🥳 peach 🍑 pear 🍐
pencil ✏️ penguin 🐧 pensive 😔 phone ☎️ pig 🐷 pill 💊 pineapple 🍍 pizza 🍕 plane ✈️
point_down 👇 point_left 👈 point_right 👉 point_up 👆 poop 💩 popcorn 🍿 potato 🥔 pray 🙏
printer 🖨️ purple_heart 💜 pushpin 📌 question ❓ rabbit 🐰 radio 📻 rage 😡 rainbow 🌈
raised_hands 🙌 recycle ♻️ relaxed ☺️ relieved 😌 ribbon 🎀 rice 🍚 robot 🤖 rocket 🚀 rofl 🤣
rose 🌹 ruler 📏 sad 😞 salad 🥗 salute 🫡 sandwich 🥪 satellite 📡 sauropod 🦕 scissors ✂️
scream 😱 scroll 📜 see_no_evil 🙈 seedling 🌱 shark 🦈 sheep 🐑 shield 🛡️ ship 🚢 shrimp 🦐
shrug 🤷 shush 🤫 skull 💀 sleeping 😴 sleepy 😪 sloth 🦥 slightly_smiling 🙂 smile 😄 smiley 😃
smirk 😏 snail 🐌 snake 🐍 sneeze 🤧 snowflake ❄️ snowman ⛄ sob 😭 soccer ⚽ sparkles ✨
speak_no_evil 🙊 speech 💬 spider 🕷️ spock 🖖 star ⭐ star_struck 🤩 strawberry 🍓 stop 🛑
sun ☀️ sunflower 🌻 sunglasses 😎 sushi 🍣 sweat 😓 sweat_smile 😅 swan 🦢 taco 🌮 tada 🎉
taxi 🚕 tea 🍵 teapot 🫖 telephone 📞 telescope 🔭 tent ⛺ test_tube 🧪 thinking 🤔 thumbsdown 👎
thumbsup 👍 ticket 🎫 tiger 🐯 timer ⏱️ tired 😫 tomato 🍅 tongue 😛 toolbox 🧰 tooth 🦷
tractor 🚜 traffic_light 🚦 train 🚆 trash 🗑️ tree 🌳 triumph 😤 trophy 🏆 tropical_fish 🐠
tulip 🌷 turtle 🐢 tv 📺 umbrella ☔ unamused 😒 unicorn 🦄 unlock 🔓 upside_down 🙃 v ✌️
vomiting 🤮 vulcan 🖖 warning ⚠️ watch ⌚ watermelon 🍉 wave 👋 weary 😩 whale 🐳
white_check_mark ✅ wine 🍷 wink 😉 wolf 🐺 worried 😟 wrench 🔧 writing_hand ✍️ x ❌ yawning 🥱
yellow_heart 💛 yum 😋 zap ⚡ zebra 🦓 zipper_mouth 🤐 zzz 💤
"""

EMOJI = dict(zip(*[iter(_LISTED.split())] * 2, strict=True))
# Several codes can mean the same emoji.
_FIRST_CODES = {emoji: code for code, emoji in reversed(EMOJI.items())}
# Not in times and addresses: `10:30:15`, `http://x:80:y`.
_CODES = re.compile(r"(?<![\w/:])(?::[+-]?\w+:)+(?![\w/:])")
_CODE = re.compile(r":([+-]?\w+):")
_VERBATIM = re.compile(r"(`[^`]*`)")


def with_emoji(text: str) -> str:
    """The text with an emoji in place of each known code, except between backticks."""
    if text.count(":") < 2:
        return text
    around = _VERBATIM.split(text)
    return "".join([part if at % 2 else _CODES.sub(_emoji, part) for at, part in enumerate(around)])


def with_code(text: str) -> str:
    """An emoji with its code, since some look alike in a terminal. Anything else stays as it is."""
    code = _FIRST_CODES.get(text)
    return f"{text} :{code}:" if code else text


def _emoji(codes: re.Match[str]) -> str:
    return _CODE.sub(lambda code: EMOJI.get(code[1].lower()) or str(code[0]), codes[0])
