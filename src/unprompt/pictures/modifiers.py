"""Telling the words that say how a picture is made from those that say what it shows."""

from __future__ import annotations

import re

_SITE = re.compile(
    r"\b(?:art\s?station|behance|cg\s?society|deviant\s?art|dribbb?le|flickr|instagram|pexels|pinterest|pixabay|"
    r"pixiv|polycount|reddit|shutterstock|tumblr|unsplash|zbrush central|cgi society|facebook|500px|danbooru|"
    r"4chan|patreon|youtube)\b"
)
_TRENDING = re.compile(
    r"\b(?:trending|featured|popular|posted|viral|award|contest|winner|winning|hot) (?:on|at|in)\b|"
    r"\bcontest winner\b"
)
_NEGATIVE = re.compile(
    r"\b(?:(?:bad|poorly drawn|malformed|mutated|extra|missing|deformed|disconnected|floating|fused|wrong|"
    r"mangled) (?:anatomy|art|hands?|limbs?|fingers?|arms?|legs?|face|faces|feet|eyes|proportions|body|quality)|"
    r"(?:low|worst|bad|normal|poor) (?:quality|res|resolution)|low-?res|lowres|jpeg artifacts|watermarks?|"
    r"signature|out of frame|(?:over|under)[\s-]?(?:saturated|saturation|exposed)|poorly drawn|mangled|mutated|"
    r"malformed|disgusting|disfigured|deformed|mutilated|mutation|blurry|ugly|cropped|error|username|"
    r"long (?:neck|body)|cross-?eyed|gross proportions|cloned face|weird colors|out of focus)\b"
)
_MOVEMENT = re.compile(
    r"\b(?:art (?:nouveau|deco|brut|informel|povera)|arts and crafts|ashcan school|avant-?garde|baroque|bauhaus|"
    r"black arts movement|cloisonnism|constructivist|cubist|dada|de stijl|fauvist|fluxus|futurist|gothic art|"
    r"gutai|harlem renaissance|hudson river school|ukiyo-?\s?-?e|les nabis|neo-?\s?-?(?:classical|gothic|rococo|"
    r"geo|fauvism|dada|pop)|renaissance|rococo|romanesque|secession|(?:op|pop|street|folk|kinetic|conceptual|"
    r"outsider|land|process|video|computer|remodernist|academic|modern|contemporary|abstract|minimalist|naive|"
    r"psychedelic|tribal|visionary|environmental|ecological|figurative|generative|interactive|concrete|feminist|"
    r"funk|lyrical|mail|net|qajar|serial|shock|space|transgressive|visual|furry|nuclear|crayon) art|vorticist|"
    r"impressionist|expressionist|surrealist|sots art|mannerist|pointillist|pre-?\s?-?raphaelite|photorealism|"
    r"(?:hyper|photo|sur|super)\s?-?\s?realism|graffiti|superflat|lowbrow|(?:\w+|school of) school(?: of (?:art|"
    r"painting))?|school of art|\w+ abstraction|color field|plein air|kitsch|vanitas|shin hanga|action painting|"
    r"art photography|tachisme|underground comix|retrofuturism|vaporwave|synthwave|socialist realism|"
    r"magic(?:al)? realism)$"
)
_ISM = re.compile(r"\b\w{3,}ism$")
_NOT_MOVEMENT = re.compile(
    r"(?:organism|(?:old|high|middle|art|boarding|magic|abandoned) school|mechanism|prism|tourism|criticism|"
    r"capitalism|communism|socialism|vandalism|metabolism|autism|journalism|optimism|magnetism|terrorism|"
    r"cannibalism|baptism|heroism|fascism)$"
)
_MEDIUM = re.compile(
    r"\b(?:painting|drawing|sketch|illustration|render|rendering|photo|photograph|photography|sculpture|statue|"
    r"engraving|etching|woodcut|woodblock(?: print)?|lithograph|linocut|screen\s?print|silk screen|mosaic|"
    r"poster|cartoon|tattoo|tapestry|collage|fresco|gouache|watercolou?rs?|acrylics?|oils?|pastels?|charcoal|"
    r"tempera|ink|pencil|stipple|line\s?art|photocopy|polaroid|screenshot|cross stitch|pixel art|"
    r"vector(?: art)?|concept art|digital art|digital artwork|digital media|mixed media|chalk art|poster art|"
    r"ascii art|computer graphics|album cover|comic book(?: panel| cover)?|book cover|diagram|hologram|"
    r"storybook illustration|matte|still life|film still|movie still|airbrush|anime|manga|cel shading|cgi|"
    r"blueprint|stained glass|origami|impasto|raytraced image|daguerreotype|cyanotype|stock image|jigsaw puzzle|"
    r"low poly|isometric|cinematography|(?:cyberpunk|egyptian|graffiti) art)(?: of)?$"
)
_ON_SURFACE = re.compile(
    r"\b(?:oils?|acrylics?|ink|tempera|watercolou?r|gouache|charcoal|pastel|pencil|chalk|paint|media|"
    r"crayon)\b.* on (?:\w+ )?(?:canvas|paper|panel|wood|board|linen|copper|silk|parchment|velvet|card|vellum)\b"
)
_QUALITY = re.compile(
    r"\b(?:highly|detail|detailed|details|intricate|elegant|smooth|sharp|focus|hdr?|uhd|[248]\s?k|16\s?k|"
    r"\d+\s?mm|octane|unreal|redshift|vray|v-ray|blender|cinema 4 ?d|raytracing|ray\s?-?\s?tracing|ray traced|"
    r"path tracing|global illumination|lumen|subsurface scattering|bokeh|photo\s?-?\s?realistic|"
    r"hyper\s?-?\s?realistic|ultra\s?-?\s?realistic|realistic|masterpiece|best quality|high quality|"
    r"high resolution|resolution|volumetric|cinematic|lighting|depth of field|dof|rule of thirds|golden ratio|"
    r"award|symmetrical|symmetry|aesthetic|wallpaper|stylized|hyper|ultra|professional|canon|nikon|sony alpha|"
    r"leica|hasselblad|kodak|fujifilm|portra|kodachrome|dslr|f\s?/?\s?\d(?:\s?\.\s?\d)?|aperture|"
    r"ambient occlusion|tone mapping|post-?processing|rendered|trending|artstation|concept art|matte painting|"
    r"epic|beautiful composition|vibrant colors|rtx|vfx|national geographic|imax|best of|dramatic|atmospheric|"
    r"moody|dreamy|8 bit|16 bit)\b"
)
_MANNER = re.compile(
    r"\b(?:style|styles|lighting|light|lights|focus|art|artwork|composition|resolution|quality|details?|"
    r"aesthetics?|lens|shot|wallpaper|engine|mood|atmosphere|palette|contrast|effects?|colou?rs|tones?|shading|"
    r"shadows|texture|textures|perspective|view|angle|close\s?-?\s?up|rendering|realism|fantasy|horror|"
    r"cyberpunk|steampunk|sci\s?-?\s?fi|science fiction|dark fantasy|noir|retro|vintage|surreal|whimsical|"
    r"ethereal|masterpiece|photorealistic|realistic|cinematic|illumination|symmetry|blur|grain|vignette|bloom|"
    r"haze|beautiful|gorgeous|stunning|epic|colorful|vibrant|minimalist|minimalism|maximalist|hyperrealistic)$"
)
_SAYS_WHAT = re.compile(r"(?<!depth)(?<!rule)(?<!best)(?<!lots) of (?!field|thirds|detail)| with | wearing | holding ")
_HYPHEN = re.compile(r"\s?-\s?")
_NUMBER = re.compile(r"(?<=\d) (?=\d|[kdx]\b)")
_ARTICLE = re.compile(r"^(?:an?|the) ")


def fold(text: str) -> str:
    """Case, blanks and the tokenizer's blanks around hyphens and in numbers folded: "4 k" is "4k"."""
    text = _HYPHEN.sub("-", " ".join(text.casefold().split()))
    return _NUMBER.sub("", text)


def guess_modifier(fragment: str) -> str | None:
    """Guesses what kind of modifier a fragment is, by its words alone.

    Returns:
        "trending", "negative", "movement", "medium" or "flavor"; None when it rather says what the picture shows, or
        names an artist.
    """
    text = _ARTICLE.sub("", fold(fragment))
    words = len(text.split())
    if words > 7:
        return None
    if _SITE.search(text) or _TRENDING.search(text):
        return "trending"
    if words <= 3 and _NEGATIVE.search(text):
        return "negative"
    if _ON_SURFACE.search(text):
        return "medium"
    if words <= 4 and (_MOVEMENT.search(text) or _ISM.search(text)) and not _NOT_MOVEMENT.search(text):
        return "movement"
    if words <= 4 and _MEDIUM.search(text):
        return "medium"
    return "flavor" if _is_manner(text, words) else None


def _is_manner(text: str, words: int) -> bool:
    if words > 5 or _SAYS_WHAT.search(text):
        return False
    return bool(_QUALITY.search(text)) or (words <= 4 and bool(_MANNER.search(text)))
