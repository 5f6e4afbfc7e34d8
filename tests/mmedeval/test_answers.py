"""What models write is read as a careful person reads it, in six languages, and fast."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mmedeval.answers import read_answer, read_paper_answer

REAL_OUTPUTS = Path(__file__).resolve().parents[3] / "shared/data/mmedbench/meds_bench_rationale_outputs.jsonl"
LANGUAGES = {"English": "en", "Chinese": "zh", "Japanese": "ja", "French": "fr", "Russian": "ru", "Spanish": "es"}

OPTIONS = {
    "English": {"A": "Renal colic", "B": "Pulmonary embolism", "C": "Acute pericarditis", "D": "Aortic dissection"},
    "English vitamins": {"A": "Vitamin D", "B": "Vitamin A", "C": "Hepatitis B vaccine", "D": "Folic acid", "E": "Iron"},
    "English organisms": {
        "A": "Staphylococcus aureus",
        "B": "Escherichia coli",
        "C": "Clostridioides difficile",
        "D": "Candida albicans",
        "E": "Bacillus cereus",
    },
    "English nested": {"A": "Embolism", "B": "Pulmonary embolism", "C": "Fat embolism", "D": "Pneumothorax"},
    "English yes or no": {"A": "yes", "B": "no", "C": "maybe"},
    "Chinese": {"A": "急性胃炎", "B": "急性胰腺炎", "C": "胆囊结石", "D": "消化性溃疡穿孔", "E": "肠梗阻"},
    "Chinese vitamins": {"A": "维生素A", "B": "维生素D", "C": "叶酸", "D": "铁剂"},
    "Chinese yes or no": {"A": "是", "B": "否"},
    "Japanese": {"A": "肺塞栓症", "B": "心筋梗塞", "C": "大動脈解離", "D": "気胸", "E": "急性心膜炎"},
    "Japanese yes or no": {"A": "はい", "B": "いいえ"},
    "French": {"A": "La morphine", "B": "Le paracétamol", "C": "L'ibuprofène", "D": "La codéine", "E": "Le tramadol"},
    "French yes or no": {"A": "Oui", "B": "Non"},
    "Russian": {"A": "инфаркт миокарда", "B": "стенокардия", "C": "перикардит", "D": "расслоение аорты"},
    "Russian yes or no": {"A": "да", "B": "нет"},
    "Spanish": {
        "A": "Apendicitis aguda.",
        "B": "Colecistitis.",
        "C": "Pancreatitis aguda.",
        "D": "Diverticulitis.",
        "E": "Úlcera perforada.",
    },
    "Spanish yes or no": {"A": "Sí", "B": "No"},
    "Chinese abdomen": {"A": "急性胆囊炎", "B": "胆囊癌", "C": "胆总管结石", "D": "急性胰腺炎", "E": "消化性溃疡"},
    "Chinese antibiotics": {"A": "青霉素", "B": "红霉素", "C": "庆大霉素", "D": "四环素", "E": "氯霉素"},
    "Chinese drugs": {"A": "氨氯地平", "B": "赖诺普利", "C": "氢氯噻嗪", "D": "普萘洛尔", "E": "螺内酯"},
    "Chinese effects": {"A": "心输出量增加", "B": "外周阻力下降", "C": "左室舒张末压升高", "D": "心率减慢", "E": "血压升高"},
    "Chinese germs": {"A": "肺炎链球菌", "B": "流感嗜血杆菌", "C": "脑膜炎奈瑟菌", "D": "李斯特菌", "E": "大肠埃希菌"},
    "Chinese hepatitis": {"A": "丙型肝炎", "B": "乙型肝炎", "C": "甲型肝炎", "D": "戊型肝炎"},
    "English drugs": {
        "A": "Amlodipine",
        "B": "Lisinopril",
        "C": "Hydrochlorothiazide",
        "D": "Propranolol",
        "E": "Spironolactone",
    },
    "English effects": {
        "A": "Increased cardiac output",
        "B": "Decreased systemic vascular resistance",
        "C": "Increased left ventricular end-diastolic pressure",
        "D": "Decreased heart rate",
    },
    "English germs": {
        "A": "Streptococcus pneumoniae",
        "B": "Haemophilus influenzae",
        "C": "Neisseria meningitidis",
        "D": "Listeria monocytogenes",
    },
    "English vaccines": {
        "A": "Hepatitis A vaccine",
        "B": "Tetanus booster",
        "C": "No vaccination needed",
        "D": "Influenza vaccine",
    },
    "English vitamins 2": {"A": "Vitamin K", "B": "Vitamin B12", "C": "Vitamin A", "D": "Vitamin E"},
    "French abdomen": {
        "A": "Cholécystite aiguë",
        "B": "Cancer de la vésicule",
        "C": "Lithiase cholédocienne",
        "D": "Pancréatite aiguë",
        "E": "Ulcère gastrique",
    },
    "French drugs": {"A": "L'aspirine", "B": "La warfarine", "C": "L'amiodarone", "D": "Le furosémide", "E": "La digoxine"},
    "French drugs 2": {
        "A": "Amlodipine",
        "B": "Lisinopril",
        "C": "Hydrochlorothiazide",
        "D": "Propranolol",
        "E": "Spironolactone",
    },
    "French germs": {"A": "Pneumocoque", "B": "Haemophilus", "C": "Méningocoque", "D": "Listeria", "E": "Escherichia coli"},
    "French statements": {
        "A": "Elle est plus fréquente chez l'homme",
        "B": "Elle est d'origine virale",
        "C": "Elle se traite par corticoïdes",
        "D": "Elle guérit sans séquelles",
        "E": "Elle atteint le nerf facial",
    },
    "French vitamins": {"A": "Thiamine", "B": "Vitamine A", "C": "Vitamine D", "D": "Vitamine C", "E": "Acide folique"},
    "Japanese abdomen": {"A": "急性胆嚢炎", "B": "胆嚢癌", "C": "総胆管結石", "D": "急性膵炎", "E": "胃潰瘍"},
    "Japanese drugs": {
        "A": "アムロジピン",
        "B": "リシノプリル",
        "C": "ヒドロクロロチアジド",
        "D": "プロプラノロール",
        "E": "スピロノラクトン",
    },
    "Japanese effects": {
        "A": "心拍出量が増加する",
        "B": "末梢血管抵抗が低下する",
        "C": "左室拡張末期圧が上昇する",
        "D": "心拍数が減少する",
        "E": "血圧が上昇する",
    },
    "Japanese germs": {"A": "肺炎球菌", "B": "インフルエンザ菌", "C": "髄膜炎菌", "D": "リステリア", "E": "大腸菌"},
    "Japanese vitamins": {"A": "ビタミンB1", "B": "ビタミンA", "C": "ビタミンD", "D": "ビタミンC", "E": "葉酸"},
    "Russian days": {"A": "3 дня", "B": "7 дней", "C": "14 дней", "D": "21 день"},
    "Russian drugs": {"A": "амлодипин", "B": "лизиноприл", "C": "гидрохлоротиазид", "D": "пропранолол", "E": "спиронолактон"},
    "Russian germs": {"A": "пневмококк", "B": "гемофильная палочка", "C": "менингококк", "D": "листерия"},
    "Russian vitamins": {"A": "Витамин В1", "B": "Витамин А", "C": "Витамин D", "D": "Витамин С"},
    "Russian yes or no 2": {"A": "да", "B": "нет"},
    "Russian yes or no 3": {"A": "Да", "B": "Нет"},
    "Spanish drugs": {"A": "Amlodipino", "B": "Lisinopril", "C": "Hidroclorotiazida", "D": "Propranolol"},
    "Spanish effects": {
        "A": "Aumenta el gasto cardiaco.",
        "B": "Disminuye la resistencia periférica.",
        "C": "Aumenta la presión telediastólica.",
        "D": "Disminuye la frecuencia cardiaca.",
    },
    "Spanish germs": {"A": "Neumococo", "B": "Haemophilus influenzae", "C": "Meningococo", "D": "Listeria"},
    "Spanish vitamins": {"A": "Tiamina", "B": "Vitamina A", "C": "Vitamina D", "D": "Vitamina C"},
    "Chinese abdomen 2": {"A": "二甲双胍", "B": "格列吡嗪", "C": "甘精胰岛素", "D": "吡格列酮"},
    "English abdomen": {"A": "Metformin", "B": "Glipizide", "C": "Insulin glargine", "D": "Pioglitazone"},
    "English abdomen 2": {"A": "Acute cholecystitis", "B": "Gallbladder cancer", "C": "Choledocholithiasis", "D": "Pancreatitis"},
    "French abdomen 2": {"A": "Metformine", "B": "Glipizide", "C": "Insuline glargine", "D": "Pioglitazone", "E": "Acarbose"},
    "Japanese abdomen 2": {
        "A": "メトホルミン",
        "B": "グリピジド",
        "C": "インスリングラルギン",
        "D": "ピオグリタゾン",
        "E": "アカルボース",
    },
    "Russian abdomen": {"A": "метформин", "B": "глипизид", "C": "инсулин гларгин", "D": "пиоглитазон"},
    "Russian yes or no 4": {"A": "да", "B": "нет"},
    "Spanish abdomen": {"A": "Metformina", "B": "Glipizida", "C": "Insulina glargina", "D": "Pioglitazona"},
}

# What models write, and the letters that a careful person reads in it.
OUTPUTS = {
    "English": [
        ("B", "B"),
        ("B", "Answer: B"),
        ("B", "(b)"),
        ("B", "**B**"),
        (
            "C",
            "The correct answer is **C. Acute pericarditis**.\n\nThe diffuse ST elevation and the pleuritic pain "
            "that improves when leaning forward are classic. Pulmonary embolism (B) would show right heart strain.",
        ),
        (
            "D",
            "Let's work through this step by step.\n\n1. The patient has tearing chest pain radiating to the "
            "back.\n2. Blood pressure differs between both arms.\n\n- Option A would cause flank pain.\n- Option B "
            "would cause pleuritic pain and tachycardia.\n- Option C would show diffuse ST elevation.\n\nTherefore "
            "the most likely diagnosis is aortic dissection.\n\n\\boxed{D}",
        ),
        (
            "B",
            '```json\n{\n  "reasoning": "The answer is A at first sight, but imaging argues otherwise.",\n  '
            '"answer": "B"\n}\n```',
        ),
        ("B", "<answer>B</answer>"),
        ("D", "<think>The answer is A. Hmm, maybe C.</think>\n\nThe answer is **D**."),
        ("", "<think>The patient has tearing pain so the answer is D. But wait, let me check"),
        (
            "B",
            "B. Pulmonary embolism\n\nExplanation: A 45-year-old with recent surgery, tachycardia and hypoxia most "
            "likely has a pulmonary embolism.",
        ),
        (
            "",
            "A patient with hepatitis B and vitamin A deficiency should be seen by a specialist in group A "
            "streptococcal disease.",
        ),
        ("", "I'm sorry, but I cannot answer medical questions. Please consult a doctor."),
        ("", "The answer is not A."),
        ("C", "A is wrong because there is no hematuria. B and D do not explain the friction rub. Hence C."),
        ("C", "Answer: A. Wait, no - the answer is C."),
        ("", "Both B and C are equally likely, so the answer could be B or C."),
        ("B", "The diagnosis is pulmonary embolism."),
        (
            "B",
            "Based on the acute onset of dyspnea and pleuritic chest pain after a long flight, I would go with option B.",
        ),
        ("C", "Option C is the best answer here, since the friction rub is pathognomonic."),
        ("", "Let's consider each option. Option A: Renal colic. This typically presents with flank"),
        ("", "The correct answer is"),
        ("", "Answer: E"),
        ("", "None of the options listed is correct."),
        ("B", "###Rationale: The patient has pleuritic chest pain.\n###Answer: OPTION B IS CORRECT.</s>"),
        ("", "The correct answers are B and D."),
        ("B", "Final answer: \\boxed{\\text{B}}"),
        (
            "C",
            "Looking at the findings:\n- A) Renal colic: incorrect, no flank pain\n- B) Pulmonary embolism: "
            "incorrect, no risk factors\n- C) Acute pericarditis: correct, friction rub\n- D) Aortic dissection: "
            "incorrect, normal mediastinum",
        ),
        (
            "D",
            "If the patient had flank pain, the answer would be A. However, the tearing pain makes D the correct choice.",
        ),
        ("", "The answer is A patient-centered approach to be discussed with the family."),
        ("A", "Ａ"),
        ("D", "D"),
        ("B", "Option B"),
        ("C", "c) Acute pericarditis"),
        ("D", "The answer is (D) Aortic dissection."),
        ("A", "I believe the correct choice is A."),
        (
            "A",
            "### Analysis\nThe pain is colicky and radiates to the groin.\n\n### Conclusion\n**Answer: A) Renal colic**",
        ),
        (
            "D",
            "Okay, so we have a 67-year-old man with sudden tearing chest pain. Let's rule things out. It's not a "
            "kidney stone, so A is out. B would need hypoxia. C improves when leaning forward. That leaves D.",
        ),
        (
            "B",
            "<thinking>\nB or D? The D-dimer is raised. B it is.\n</thinking>\n\nBased on the raised D-dimer, the answer is B.",
        ),
        ("", "<think>\nLong reasoning here... so the answer is B."),
        ("B", "reasoning about A and C</think>\n\nB"),
        ("D", '{"answer": "D", "confidence": 0.83}'),
        ("C", '```json\n{"choice": "C", "explanation": "B is unlikely because the patient is not hypoxic"}\n```'),
        ("C", "<reasoning>A and B look alike.</reasoning><answer>C</answer>"),
        ("C", "The best answer is C because the ECG shows diffuse ST elevation. A, B, and D are incorrect."),
        ("C", "Neither A nor B explains the friction rub, and D would cause unequal pulses. C is correct."),
        ("", "It could be B, but without imaging it is impossible to say. I cannot determine the answer."),
        ("", "As an AI language model, I am unable to provide medical advice."),
        ("", "The correct answer is not listed among the options."),
        (
            "C",
            "The patient's symptoms suggest an acute pericarditis. The friction rub and the diffuse ST elevation "
            "support this. The other options do not fit.",
        ),
        ("D", "A) Renal colic\nB) Pulmonary embolism\nC) Acute pericarditis\nD) Aortic dissection\n\nAnswer: D"),
        ("", "A) Renal colic\nB) Pulmonary embolism\nC) Acute pericarditis\nD) Aortic dissection"),
        ("B", "Initially I considered A, however the correct answer is B."),
        ("D", "The answer is B. Actually, let me reconsider. Given the unequal pulses, the correct answer is D."),
        ("B", "Answer: B\n\nQuestion: A 30-year-old woman presents with a rash. What is the diagnosis?\nAnswer: C"),
        ("C", "So the final answer is $\\boxed{\\text{C}}$."),
        ("C", "Final Answer: The final answer is $\\boxed{C. \\text{ Acute pericarditis}}$. I hope it is correct."),
        ("", "A 54-year-old man with blood type A and a history of hepatitis C presents with a grade B lesion"),
        ("D", "Although B is the most common cause in general, the patient's findings point to D as the answer."),
        ("B", "The correct answer is: \n\n**B. Pulmonary embolism**"),
        ("C", "My answer would be C"),
        ("", "None of these. The patient has costochondritis."),
        ("C", "###Answer: OPTION C IS CORRECT.<|eot_id|>"),
        ("", "###Rationale: The pain is pleuritic and the patient"),
        (
            "B",
            "The most likely diagnosis in this patient is **pulmonary embolism (Option B)**.\n\n**Key findings:**\n"
            "- Recent surgery\n- Tachycardia\n\n**Why not the others?**\n- **A. Renal colic** would cause "
            "hematuria.\n- **C. Acute pericarditis** improves on leaning forward.\n- **D. Aortic dissection** "
            "causes tearing pain.",
        ),
        (
            "B",
            "To determine the most likely diagnosis, let's analyze each option:\n\nA. Renal colic: This is "
            "characterized by flank pain. The patient does not have this.\nB. Pulmonary embolism: This is "
            "characterized by sudden dyspnea. The patient has this.\nC. Acute pericarditis: Usually presents with "
            "a friction rub.\nD. Aortic dissection: Usually presents with tearing pain.\n\nBased on this analysis, "
            "the most likely diagnosis is B. Pulmonary embolism.",
        ),
        (
            "D",
            "Sure! Here's my reasoning.\n\nStep 1: Identify the key features.\nStep 2: Match them with the "
            "options.\n\nThe answer is option D, aortic dissection, because of the unequal pulses and the widened "
            "mediastinum. Option A can be excluded.",
        ),
        ("C", "Selected option: C"),
        ("C", "C."),
        ("C", "Answer: C. Acute pericarditis</s>"),
        ("A", "The correct answer is option (A)."),
        ("D", "Correct answer: D\nExplanation: A is wrong, B is wrong, C is wrong."),
        ("B", "Ans. B"),
        ("C", "ANSWER: (C)"),
        ("D", "The right choice here is clearly D."),
        ("B", "[B]"),
        ("C", "Therefore, the answer is (C).\n\nNote: If there had been hematuria, A would have been the answer."),
        ("D", "Both A and D can present with back pain, but only D explains the unequal pulses."),
        ("", "Option A is incorrect. Option B is incorrect. Option C is incorrect."),
        ("", "I'd need more information to answer. Could you share the ECG?"),
        ("A", "A"),
        ("", "A 62-year-old man presents with sudden chest pain. A CT scan was done. A D-dimer test was positive."),
        (
            "",
            "The options are A (renal colic), B (pulmonary embolism), C (acute pericarditis) and D (aortic dissection).",
        ),
        ("C", "Is the answer B? Probably not. The friction rub makes C the most likely answer."),
        ("B", "It's B."),
        ("B", "I think B is the answer but I am not completely sure."),
        ("", "The answer is either A or B."),
        ("B", "The answer is B, not C."),
        ("B", "B > C > A > D. Final: B"),
        ("B", "Thus, the patient most likely has a pulmonary embolism, which corresponds to option B."),
        ("C", "The patient has acute pericarditis."),
        (
            "D",
            "Renal colic can be excluded, pulmonary embolism is unlikely, acute pericarditis would cause diffuse "
            "ST elevation. Hence the diagnosis is aortic dissection.",
        ),
        ("B", "Pulmonary embolism"),
        ("B", "**Pulmonary embolism**\n\nThe patient's immobilization and hypoxia support this."),
        ("A", "Given X, Y and Z, I would choose A over B."),
        ("A", "\\[\\boxed{A}\\]"),
        ("A", "{'answer': 'A'}"),
        ("", '{"answer": null}'),
        ("", '{"answer": "E"}'),
        ("D", "<think>short</think><answer>\nD\n</answer>"),
        ("C", "<|channel|>analysis<|message|>Maybe A.<|end|><|start|>assistant<|channel|>final<|message|>**C**"),
        ("D", "Answer: D<|im_end|>\n<|im_start|>user\nAnother question"),
        ("", "The answer cannot be A because there is no flank pain. It cannot be C either."),
        ("B", "Choice B is right; the rest are distractors."),
        ("", "The treatment of choice is warfarin."),
        ("", "According to the guidelines, class C evidence supports this; see Figure B and Table A."),
        ("", "Let me think. The patient has influenza A and takes amphotericin B, and the coenzyme A is normal."),
        (
            "D",
            "So, in conclusion, B is correct. Wait, I misread the question: the pulses are unequal. The answer should be D.",
        ),
        ("B", "Answer:\nB"),
        ("C", "The answer is\n\nC"),
        ("A", "(A) Renal colic is the correct answer."),
        ("D", "I choose d."),
        ("C", "✅ C. Acute pericarditis\n❌ A. Renal colic\n❌ B. Pulmonary embolism\n❌ D. Aortic dissection"),
        ("C", "I'd say C."),
        ("A", "Definitely A!"),
        ("D", "Option D fits."),
        ("A", "Option A matches all the findings."),
        ("B", "Answer: A\n\nActually, correction: Answer: B"),
        ("B", "The answer is C. Sorry, I meant B."),
        ("B", "B because the D-dimer is raised."),
        ("", "First, A is unlikely. Second, B is unlikely. Third, C"),
        ("D", "The answer is most likely D, though B would be my second choice."),
        (
            "C",
            "Considering the options:\n\nOption A can be excluded.\nOption D can be excluded.\n\nBetween B and C, "
            "the friction rub favors C.",
        ),
        (
            "D",
            "Of the choices listed, only aortic dissection explains both the tearing pain and the widened mediastinum.",
        ),
        ("D", "I am inclined towards D because of the widened mediastinum."),
        ("B", "The evidence points towards B."),
        ("B", "B?"),
        ("A", "Correct answer => A"),
        ("A", "The patient is suffering from renal colic (option A), because of the hematuria."),
        ("B", "In my opinion, B."),
    ],
    "English, several": [
        ("AC", "Answer: A, C"),
        ("ACD", "ACD"),
        ("BD", "The correct answers are B and D."),
        ("AD", '{"answer": ["A", "D"]}'),
        ("ABD", "A, B and D are correct."),
        ("BC", "Correct options: B, C"),
        ("C", "The answer is C."),
        ("AD", "<answer>A,D</answer>"),
        ("AC", "**A** and **C**"),
        ("AC", "The correct answers are A and C, because both fit. B is incorrect."),
        ("AC", "A: true\nB: false\nC: true\nD: false"),
        ("ACD", "Options A, C, and D are all correct."),
        ("BD", "B/D"),
        ("AB", "I would select A and B."),
        ("AB", "Both A and B are correct."),
        ("AC", "\\boxed{A, C}"),
        ("ABC", "All of the listed options except D are correct: A, B, C."),
        ("B", "Only B is correct."),
        ("", "It is unclear whether A or B is meant."),
        ("AD", "I would choose A and also D."),
        ("AD", "The correct choices: A; D"),
        ("A", "A only"),
    ],
    "English vitamins": [
        ("B", "The patient needs vitamin A."),
        ("B", "The correct answer is vitamin A."),
        ("A", "Deficiency of vitamin D causes rickets; therefore the answer is A."),
        ("C", "Hepatitis B vaccine"),
        ("E", "The correct answer is E. Iron."),
        ("D", "She should receive folic acid before conception. The answer is D."),
        ("A", "This child has rickets. Vitamin D deficiency is the cause, therefore vitamin D should be given."),
    ],
    "English organisms": [
        ("", "The most likely organism is E. coli."),
        ("B", "The culture most likely grew Escherichia coli, so the answer is B."),
        ("C", "The patient has C. difficile colitis, so the correct answer is C."),
        ("A", "The most likely pathogen is Staphylococcus aureus."),
        ("", "This is an E. coli infection."),
        ("A", "Gram-positive cocci in clusters suggest Staphylococcus aureus, so A."),
    ],
    "English nested": [
        ("B", "The diagnosis is pulmonary embolism."),
        ("C", "Given the petechiae after a femur fracture, the most likely diagnosis is fat embolism."),
        ("C", "It is a fat embolism rather than a pulmonary embolism."),
        ("A", "Answer: Embolism"),
    ],
    "English yes or no": [
        ("A", "Yes, the drug is a selective antagonist."),
        ("B", "No."),
        ("C", "The answer is maybe."),
        ("A", "Based on the abstract, the answer is yes."),
        ("B", "no"),
        ("C", "Maybe"),
        ("A", "Yes. The trial showed a significant reduction in mortality."),
        ("B", "**No**"),
        ("C", 'The results are inconclusive, so the answer is "maybe".'),
        ("", "There is no evidence that yes-or-no thinking helps."),
        ("", "Answer: yes/no/maybe"),
        ("B", "The abstract does not support the conclusion, so no."),
        ("C", "It is uncertain. Maybe."),
    ],
    "Chinese": [
        ("B", "B"),
        ("B", "正确答案是B"),
        ("C", "故选C"),
        ("D", "答案：D"),
        ("B", "患者上腹剧痛，血淀粉酶升高，考虑急性胰腺炎。因此，正确答案为B。急性胰腺炎。"),
        ("B", "选项A错误，急性胃炎一般无淀粉酶升高；选项C错误；选项D不符合；选项B正确。"),
        ("B", "选B。理由：血淀粉酶明显升高。"),
        ("D", "本题考查急腹症的鉴别诊断。A项不正确，B项不正确，C项可以排除，E项无停止排气排便，因此应选D。"),
        ("B", "（B）"),
        ("B", "Ｂ"),
        ("C", "**答案：C. 胆囊结石**\n\n解析：右上腹痛，Murphy征阳性。"),
        ("", "答案不是A。"),
        ("", "患者为B型血，乙型肝炎病毒携带者，建议查维生素A水平。"),
        ("D", "<think>可能选A吧，也可能选C。</think>综合分析，最可能的诊断是D。"),
        ("", "<think>患者表现为腹痛，答案应该是B"),
        ("E", "答案是A。等等，重新考虑后，答案应为E。"),
        ("", "很抱歉，我无法回答这个问题，请咨询医生。"),
        ("", "A和B都有可能，无法确定。"),
        ("B", "最可能的诊断是急性胰腺炎。"),
        ("B", '{"答案": "B"}'),
        ("B", "根据题干信息，B选项最符合题意。其他选项均不符合。"),
        ("B", "选择B的理由是患者血淀粉酶升高，而A、C、D均不能解释。"),
        ("E", "综上所述，本题应选择E项。"),
        ("", "首先看选项A，急性胃炎，多有饮食不洁史，"),
        ("B", "\\boxed{B}"),
        ("B", "The answer is B."),
        ("B", "答案：B"),
        ("B", "B。急性胰腺炎"),
        ("C", "选C"),
        ("D", "本题正确答案为D选项。"),
        ("E", "综上，正确选项是 **E**。"),
        ("A", "**正确答案：A**\n\n**解析：**\n1. 患者有不洁饮食史。\n2. B、C、D、E均不符合。"),
        (
            "D",
            "根据患者的临床表现，突发上腹部刀割样疼痛，板状腹，膈下游离气体，最可能的诊断是消化性溃疡穿孔，故选D。",
        ),
        (
            "D",
            "A选项：急性胃炎，不会出现板状腹，错误。\nB选项：急性胰腺炎，淀粉酶升高，错误。\nC选项：胆囊结石，"
            "错误。\nD选项：消化性溃疡穿孔，正确。\nE选项：肠梗阻，错误。",
        ),
        ("", "这道题应该选A还是B呢？需要更多信息。"),
        ("", "作为人工智能，我不能提供医疗建议。"),
        ("C", "我认为答案是C，因为右上腹疼痛伴Murphy征阳性。"),
        ("C", "不选A，因为无恶心呕吐；不选B，因为淀粉酶正常；所以选C。"),
        ("D", "排除A、B、C、E，答案为D。"),
        ("D", "<think>\n嗯，这道题问的是……选B？不对，应该选D。\n</think>\n\n**答案：D**"),
        ("", "<think>\n嗯，这道题问的是……选B"),
        ("E", "最有可能的是肠梗阻。"),
        ("D", "正确答案：Ｄ"),
        ("C", "答案选（C）。"),
        ("", "患者应查C反应蛋白和B超，必要时做A组链球菌检测。"),
        ("", "答案是F。"),
        ("B", "先选A。更正：正确答案是B。"),
        ("C", "因此，该患者的诊断应为胆囊结石。"),
        ("D", "\\boxed{D}"),
        ("E", '{"answer":"E"}'),
        ("D", "D项不符合题意，其他各项均正确，故本题选D。"),
        ("", "B和C都正确。"),
        ("", "首先分析题干。患者男，45岁，突发上腹痛。选项A："),
        ("A", "答案为：A"),
        ("D", "正确答案是：**D. 消化性溃疡穿孔**"),
        ("C", "【答案】C"),
        ("B", "【答案】B【解析】血淀粉酶升高提示胰腺炎。A错误。"),
        (
            "B",
            "好的，我们来分析这道题。\n\n题干关键信息：暴饮暴食后上腹痛，血淀粉酶升高。\n\n逐项分析：\n- A. "
            "急性胃炎：一般无淀粉酶明显升高。\n- B. 急性胰腺炎：典型表现。\n- C. 胆囊结石：右上腹绞痛。\n- D. "
            "消化性溃疡穿孔：板状腹。\n- E. 肠梗阻：停止排气排便。\n\n因此，最符合的选项是B。",
        ),
        ("B", "我选择B选项。"),
        ("D", "此题选D"),
        ("C", "应该选择C。"),
        ("E", "正确的是E。"),
        ("A", "所以答案就是A。"),
        ("", "答案不可能是A或B。"),
        ("B", "如果患者有黄疸，则应选C；但本例没有，因此选B。"),
        ("D", "A、B、C、D、E五个选项中，只有D能解释膈下游离气体。"),
        ("B", "患者诊断为急性胰腺炎，答案应为B。"),
        ("E", "考虑诊断：肠梗阻。"),
        ("", "很难判断，可能是A，也可能是D。"),
        ("", "题目信息不足，无法作答。"),
        ("C", "错误的是C。"),
        ("A", "A正确。"),
        ("B", "B（急性胰腺炎）"),
        ("C", "最终答案：\\boxed{C}"),
        ("B", "<think>应该是B吧</think>\nB"),
        ("E", "</think>\n\n答案：E"),
        ("D", "大多数人会误选A，但正确答案是D。"),
        ("D", "D是正确答案，因为膈下有游离气体。"),
        ("C", "选项C是本题的正确答案。"),
        ("B", "B选项正确，其余选项错误。"),
        ("", "乙肝表面抗原阳性，A型血，B超示胆囊增大，C级推荐。"),
        ("A", "本题选A，不选B。"),
        ("B", "答案是B而不是C。"),
        ("B", "答案选择：B，急性胰腺炎"),
        ("B", "正確答案是B。"),
        ("C", "本题的答案是 C"),
        ("E", "A、B、C均不正确，D不符合，所以正确答案是E。"),
        ("B", "本例首先考虑急性胰腺炎，其次为消化性溃疡穿孔。"),
        ("", "下面逐项分析：A. 急性胃炎"),
        ("E", "从影像学看，E选项最有可能。"),
        ("", "因为患者没有发热，所以不考虑A。"),
        ("D", "D？"),
        ("B", "其他选项均有误，B正确。"),
    ],
    "Chinese, several": [
        ("ACE", "正确答案是A、C、E"),
        ("ABD", "故选ABD。"),
        ("AC", "答案：A和C"),
        ("ABCE", "ABCE"),
        ("ABD", "正确的有A、B、D。"),
        ("BCE", "本题为多选题，答案为BCE。"),
        ("AC", "A、C正确，B、D、E错误。"),
        ("ABCDE", "正确选项：A、B、C、D、E"),
        ("AD", "应选择A、D两项。"),
        ("AC", "选项A和选项C正确。"),
        ("ACD", "ACD"),
        ("ABE", "答案：A,B,E"),
        ("AC", "A对，B错，C对，D错，E错。"),
    ],
    "Chinese vitamins": [
        ("B", "该患儿缺乏维生素D，应补充维生素D。答案为B。"),
        ("A", "该药为维生素A，可用于治疗夜盲症。因此答案选A。"),
        ("D", "缺铁性贫血应补充铁剂，故答案为D。"),
        ("B", "维生素D"),
    ],
    "Chinese yes or no": [
        ("A", "是"),
        ("B", "否，该药物不能用于妊娠期妇女。"),
        ("A", "是的，该说法正确。"),
        ("B", "答案：否"),
        ("A", "是。"),
        ("B", "答案是否。"),
        ("B", "不是，这种说法没有依据。"),
    ],
    "Japanese": [
        ("B", "正解はb"),
        ("B", "正解はBです。"),
        ("C", "答え：C"),
        ("D", "D"),
        ("C", "突然の胸背部痛と血圧の左右差から、大動脈解離が最も考えられる。したがって、正解はCである。"),
        ("C", "Aは誤りです。Bも誤りです。Cが正しいです。"),
        ("E", "選択肢Eが最も適切です。"),
        ("B", "Bを選択します。"),
        ("A", "解答：A（肺塞栓症）"),
        ("", "正解はAではありません。"),
        ("D", "正解はAではなくDです。"),
        ("", "この患者はB型肝炎の既往があり、ビタミンAを内服している。"),
        ("", "申し訳ありませんが、この質問にはお答えできません。"),
        ("E", "<think>たぶんA。いや、Bかも。</think>\n答えはEです。"),
        ("", "<think>胸痛なので、答えはB"),
        ("", "AとBの両方が正解と考えられます。"),
        ("A", "最も考えられるのは肺塞栓症である。"),
        ("D", "誤っているのはDです。"),
        (
            "A",
            "a. 肺塞栓症：正しい。\nb. 心筋梗塞：誤り。\nc. 大動脈解離：誤り。\nd. 気胸：誤り。\ne. 急性心膜炎：誤り。",
        ),
        ("D", "**正解：D. 気胸**\n\n**解説**\n若い長身の男性に突然発症した胸痛であり、呼吸音の減弱を認める。"),
        ("C", "答えはAです。いや、訂正します。正解はCです。"),
        ("", "まず選択肢Aの肺塞栓症について考えると、"),
        ("C", '{"answer": "c"}'),
        ("E", "したがって、Eが正解となります。"),
        ("D", "「D」"),
        ("C", "C"),
        ("C", "c"),
        ("B", "答えはBです。"),
        ("E", "正答：E"),
        ("D", "正解は「D. 気胸」です。"),
        ("A", "したがって、最も適切な選択肢はAです。"),
        (
            "A",
            "突然の胸痛と呼吸困難があり、長時間のフライト後であることから、選択肢Aの肺塞栓症が最も疑われます。"
            "他の選択肢は所見と合いません。",
        ),
        ("B", "a：誤り。b：正しい。c：誤り。d：誤り。e：誤り。"),
        ("C", "Aではない。Bでもない。よってCが正解。"),
        ("", "ビタミンA欠乏症とC型肝炎、E型肝炎を鑑別する。"),
        ("B", "回答：(b)"),
        ("C", "<think>\nこの患者はAかな。\n</think>\n\n正解: **C**"),
        ("D", "考えると、Aは違う。Bも違う。</think>D"),
        ("", "わかりません。医師に相談してください。"),
        ("", "AまたはCと考えられるが、情報が不足している。"),
        ("C", "診断は大動脈解離である。"),
        ("B", "以上より、選択肢bを選ぶ。"),
        ("D", "最初はAと考えたが、正解はDである。"),
        ("E", "Eを選びました。理由は、心膜摩擦音があるためです。"),
        ("B", '{"正解": "B"}'),
        ("A", "\\boxed{A}"),
        ("C", "不適切なのはCです。"),
        ("", "この患者は血液型がA型で、B細胞が減少している。"),
        ("D", "正解：ｄ"),
        ("B", "The correct answer is B (心筋梗塞)."),
        ("A", "正解: A"),
        ("C", "答えは c です。"),
        ("B", "**答え: B**"),
        ("D", "【正解】D"),
        ("C", "【解答】C\n【解説】Aは誤り。Bは心電図で否定的である。"),
        (
            "C",
            "最も可能性の高い診断は、C. 大動脈解離です。\n\n理由：突然の背部痛、血圧の左右差。\n\n- A. 肺塞栓症："
            "低酸素血症がない。\n- B. 心筋梗塞：ST上昇がない。",
        ),
        (
            "C",
            "以下、各選択肢を検討します。\na. 肺塞栓症 → Dダイマーは上昇するが、左右差はない。\nb. 心筋梗塞 → "
            "心電図変化がない。\nc. 大動脈解離 → 所見に合致する。\nd. 気胸 → 呼吸音は正常。\ne. 急性心膜炎 → "
            "摩擦音がない。\n\nよって、正解はcです。",
        ),
        ("C", "Cが最も適切であると考えられます。"),
        ("D", "Dと考えられる。"),
        ("B", "選択肢の中ではBが正解です。"),
        ("", "正解はBとDのどちらかです。"),
        ("", "情報が不足しているため、判断できません。"),
        ("D", "答えはAです。しかし、よく考えるとDの方が適切です。正解はDです。"),
        ("B", "Aではなく、Bである。"),
        ("", "A群溶連菌感染症、B型肝炎、C反応性蛋白の上昇を認める。"),
        ("", "患者Aは25歳の男性である。"),
        ("D", "気胸"),
        ("E", "診断：急性心膜炎"),
        ("A", "考えられる疾患は肺塞栓症である。"),
        ("B", "間違っているのはBです。"),
        ("E", "正しい選択肢はEです。他の選択肢は誤りです。"),
        ("E", "したがって答えはe。"),
        ("D", "\\boxed{d}"),
        ("B", "<answer>B</answer>"),
        ("B", "<think>cかな</think>\n\n**b**"),
        ("D", "解答はDとなります。"),
        ("B", "この症例ではBを選択するのが妥当です。"),
        ("D", "正解はDの気胸です。"),
        ("C", "Answer: c"),
        ("B", "正解は、Bの心筋梗塞です。"),
        ("E", "a～dは誤りで、正解はeです。"),
        ("C", "aは×、bは×、cは○、dは×、eは×。"),
        ("C", "消去法でCとなる。"),
        ("C", "正解はAと思われたが、実際はCである。"),
        ("", "AもBも正解である。"),
        ("D", "Dである。"),
        ("A", "正解は、a 肺塞栓症。"),
        ("B", "Bだと考えます。"),
        ("", "aまたはb。"),
    ],
    "Japanese, several": [
        ("AD", "正解はaとdです。"),
        ("ACE", "A、C、E"),
        ("BD", "したがって、選択肢BとDが正しい。"),
        ("BE", "正解はbとeである。"),
        ("BD", "b、d"),
        ("ACD", "適切なのはA、C、Dの3つです。"),
        ("ACD", "ACD"),
        ("A", "Aが正しい。"),
        ("AD", "正しいのはA、Dである。"),
        ("AE", "正解：a, e"),
        ("AC", "AとCを選ぶ。"),
        ("AC", "a ○\nb ×\nc ○\nd ×\ne ×"),
        ("CE", "CとEが正解です。"),
        ("BD", "bとdが適切な選択肢です。"),
        ("ACD", "acd"),
        ("ACE", "a, c, e"),
        ("ADE", "選択肢A、D、Eが該当します。"),
        ("BC", "bとcです。"),
        ("BD", "正答はBDです。"),
        ("AE", "aおよびeが正しい。"),
        ("BC", "b, c が正しい。"),
    ],
    "Japanese yes or no": [
        ("A", "はい"),
        ("B", "いいえ、この薬は禁忌です。"),
        ("A", "答え：はい"),
        ("B", "いいえ。"),
        ("A", "はい、正しいです。"),
        ("B", "答えは「いいえ」です。"),
        ("B", "したがって、答えは「いいえ」となります。"),
    ],
    "French": [
        ("C", "La réponse correcte est C"),
        ("B", "Réponse : B"),
        ("B", "B"),
        ("D", "La bonne réponse est la D. La codéine est un opioïde faible."),
        ("B", "L'option B est correcte car le paracétamol est l'antalgique de palier I."),
        ("E", "La proposition A est fausse, la proposition C est fausse ; la proposition E est exacte."),
        ("", "Il a été traité par de la vitamine A et du facteur VIII. Le patient a une hépatite B."),
        ("", "A noter que le patient a reçu un traitement à domicile."),
        ("", "Je suis désolé, je ne peux pas répondre à cette question."),
        ("", "La réponse n'est pas A."),
        ("E", "La réponse est A. Non, je me corrige : la bonne réponse est E."),
        ("B", "Je choisis la réponse B."),
        ("C", "Donc, la réponse est **C. L'ibuprofène**."),
        ("D", "<think>Je pense que c'est A</think>\nRéponse : D"),
        ("", "<think>Je pense que c'est A, la réponse est A"),
        ("E", "La réponse correcte est le tramadol."),
        ("B", "L'antalgique de première intention est le paracétamol."),
        ("", "A et B sont toutes les deux possibles."),
        ("D", "L'option D est la seule fausse, les autres propositions sont exactes."),
        ("", "La morphine (A) est un opioïde fort, tandis que le tramadol (E) est un opioïde faible"),
        ("A", '{"réponse": "A"}'),
        ("C", "C'est donc la réponse C qui convient le mieux."),
        ("D", "D"),
        ("D", "Réponse D."),
        ("B", "La bonne réponse est donc la réponse B : le paracétamol."),
        ("C", "**Réponse : C) L'ibuprofène**\n\nExplication : c'est un AINS. A, D et E sont des opioïdes."),
        ("E", "Je pense que la réponse est E."),
        ("B", "Parmi les propositions, seule la B est exacte."),
        ("D", "La proposition D est exacte. Les autres sont fausses."),
        ("D", "L'opioïde faible cité est la codéine."),
        ("", "Désolé, je ne suis pas en mesure de donner un avis médical."),
        ("", "Aucune des propositions n'est correcte."),
        ("", "A l'examen, le patient a une fièvre à 39. C'est un cas d'hépatite C de type A."),
        ("C", "Ce n'est ni A ni B ; c'est donc C."),
        ("D", "Au départ j'aurais dit A, mais la bonne réponse est D."),
        ("", "La réponse pourrait être A ou B."),
        ("B", "<think>A ? Non, plutôt B.</think>\n\nLa réponse correcte est **B**."),
        ("E", '{"answer": "E"}'),
        ("C", "\\boxed{C}"),
        ("E", "Il faut choisir la réponse E."),
        ("C", "La proposition fausse est la C."),
        ("C", "c"),
        ("A", "La réponse est a)."),
        ("", "La morphine est un antalgique de palier III, utilisé dans les douleurs"),
        ("D", "**Réponse correcte : D. La codéine**"),
        ("A", "La réponse exacte est la proposition A."),
        ("C", "Il s'agit de la réponse C."),
        ("B", "C'est la réponse B."),
        ("B", "La réponse est B) Le paracétamol."),
        ("E", "Réponse finale : E"),
        (
            "D",
            "Analysons chaque proposition :\n\nA. La morphine : opioïde fort, donc incorrect.\nB. Le paracétamol : "
            "non opioïde, donc incorrect.\nC. L'ibuprofène : AINS, donc incorrect.\nD. La codéine : opioïde faible,"
            " c'est correct.\nE. Le tramadol : incorrect car il s'agit d'un IRSNA.\n\nLa bonne réponse est donc D.",
        ),
        ("A", "A est vraie. B est fausse. C est fausse. D est fausse. E est fausse."),
        ("A", "A est correct."),
        ("D", "À mon avis, la réponse est D."),
        ("", "Le patient a reçu 1 g de paracétamol."),
        ("", "Il a mal à la tête et à la nuque. Cela dit, il y a aussi une fièvre."),
        ("", "C'est difficile à dire : A ou C."),
        ("", "Je n'ai pas assez d'informations pour répondre."),
        ("", "La réponse n'est ni A ni B."),
        ("C", "Si le patient était asthmatique, la réponse serait B. Ici, la réponse est C."),
        ("E", "D'après les recommandations, c'est l'option E qui est la plus appropriée."),
        ("D", "Toutes les propositions sont vraies sauf la D."),
        ("E", "La seule proposition inexacte est la E."),
        ("C", "l'ibuprofène"),
        ("B", "<answer>B</answer>"),
        ("E", "<think>hmm</think>E."),
        ("D", "Réponse: d"),
        ("B", "La réponse correcte est l'option « B »."),
        ("E", "Il s'agit du tramadol."),
        ("E", "La bonne réponse n'est pas A mais E."),
        ("C", "La réponse semble être C."),
        ("E", "La réponse doit être E."),
        ("E", "La proposition E correspond à la bonne réponse."),
        (
            "",
            "Examinons les propositions une par une. A : la morphine est un opioïde fort. B : le paracétamol n'est "
            "pas un opioïde. C : l'ibuprofène est un AINS. D : la codéine est un opioïde faible. E : le tramadol",
        ),
        ("B", "Mon choix se porte sur B."),
        ("E", "Parmi les choix proposés, c'est le tramadol (E) qui répond le mieux à la question."),
        ("B", "Je pencherais pour la B."),
        ("A", "Je vote pour A."),
    ],
    "French, several": [
        ("ACE", "Les bonnes réponses sont A, C et E"),
        ("AD", "Réponses correctes : A, D"),
        ("AC", "A et C"),
        ("ACE", "ACE"),
        ("AC", "A. Vrai\nB. Faux\nC. Vrai\nD. Faux\nE. Faux"),
        ("BD", "Les propositions exactes sont B et D car elles décrivent des opioïdes."),
        ("AD", "Les réponses A et D sont correctes."),
        ("BCE", "Réponse : BCE"),
        ("BD", "A - Faux\nB - Vrai\nC - Faux\nD - Vrai\nE - Faux\n\nRéponse : B, D"),
        ("ABE", "Les propositions correctes sont : A, B et E."),
        ("AC", "A, C"),
        (
            "BC",
            "###Rationale: Le paracétamol et l'ibuprofène sont des antalgiques de palier I.\n###Answer: OPTION B,C "
            "IS CORRECT.</s>",
        ),
        ("C", "La bonne réponse est la C."),
        ("ABD", "Les bonnes réponses sont a, b et d."),
        ("ABD", "Réponses : A, B et D"),
        ("ACE", "Les propositions A, C et E sont exactes."),
        ("ADE", "Les bonnes réponses sont : A (la morphine), D (la codéine) et E (le tramadol)."),
        ("AB", "A et B sont exactes ; C, D et E sont fausses."),
        ("ADE", "###Answer: OPTION A,D,E IS CORRECT."),
        ("B", "Réponse : B"),
        ("BD", "BD"),
        ("ADE", "A. Vrai : c'est un opioïde.\nB. Faux : ce n'est pas un opioïde.\nC. Faux.\nD. Vrai.\nE. Vrai."),
        ("AD", "Les réponses exactes sont donc les suivantes :\n- A. La morphine\n- D. La codéine"),
        ("AE", "Je retiens les propositions A et E."),
        (
            "ADE",
            "Option A : correcte. Option B : incorrecte. Option C : incorrecte. Option D : correcte. Option E : correcte.",
        ),
        ("ABCDE", "Toutes les propositions sont exactes."),
        ("AC", "A (vrai), B (faux), C (vrai), D (faux), E (faux)"),
        ("ACE", "Réponses : A - C - E"),
        ("ACE", "A vrai, B faux, C vrai, D faux, E vrai"),
    ],
    "French yes or no": [
        ("A", "Oui, le paracétamol est hépatotoxique à forte dose."),
        ("B", "Réponse : non"),
        ("B", "Non, ce médicament est contre-indiqué."),
        ("A", "oui"),
        ("A", "Oui."),
        ("B", "La réponse est non."),
        ("B", "Non"),
        ("A", "Effectivement, oui."),
        ("B", "Je répondrais non."),
    ],
    "Russian": [
        ("B", "Правильный ответ: B"),
        ("A", "Ответ: А"),
        ("C", "Ответ: С"),
        ("B", "B"),
        ("", "В данном случае у пациента нет признаков шока. А также нет боли."),
        ("C", "Правильный ответ — C (перикардит)."),
        ("A", "B и C неверны, поэтому правильный ответ A."),
        ("", "Ответ: Б"),
        ("", "А) верно Б) неверно В) неверно. Ответ: В"),
        ("", "Правильный ответ не A."),
        ("D", "Я выбираю вариант D."),
        ("B", "Вариант B является наиболее вероятным."),
        ("D", "Наиболее вероятный диагноз — расслоение аорты."),
        ("", "К сожалению, я не могу ответить на этот вопрос."),
        ("", "У пациента гепатит B и дефицит витамина D."),
        ("D", "<think>Наверное, A</think>Ответ: **D**"),
        ("", "<think>Наверное, ответ A, но нужно"),
        ("C", "Ответ: A. Нет, ошибка: правильный ответ C."),
        ("C", "\\boxed{C}"),
        ("", "Ответ: A или B"),
        ("C", "Следовательно, выбор ответа C обоснован."),
        ("D", "Ответ: D"),
        ("D", "Ответ: D. расслоение аорты"),
        ("C", "C"),
        ("C", "С"),
        ("A", "Правильный ответ: **A. инфаркт миокарда**\n\nОбоснование: подъём сегмента ST, боль за грудиной."),
        ("C", "Наиболее вероятным диагнозом является перикардит (C)."),
        (
            "C",
            "Вариант A не подходит, так как нет подъёма ST. Вариант B не подходит. Вариант D не подходит. Остаётся вариант C.",
        ),
        ("B", "Я считаю, что правильным ответом является B."),
        ("D", "Итак, верный вариант — D."),
        ("", "Невозможно дать точный ответ, обратитесь к врачу."),
        ("", "С учётом данных анамнеза, а также результатов ЭКГ, требуется обследование. В крови повышен тропонин."),
        ("", "У больного вирусный гепатит С, группа крови А, тип В."),
        ("", "Ответ: E"),
        ("", "Ответом может быть A или C."),
        ("D", "Не A, а D."),
        ("B", "Сначала я думал, что ответ A, но правильный ответ B."),
        ("B", '{"ответ": "B"}'),
        ("B", "Диагноз: стенокардия."),
        ("C", "**Правильный ответ: C. перикардит**"),
        ("D", "Правильный ответ – D."),
        ("B", "Ответ: (B)"),
        ("A", "Верный ответ: A"),
        ("C", "Правильным вариантом является C."),
        (
            "C",
            "Разберём варианты:\nA. инфаркт миокарда — нет подъёма ST, неверно.\nB. стенокардия — боль не связана "
            "с нагрузкой, неверно.\nC. перикардит — шум трения перикарда, верно.\nD. расслоение аорты — пульс "
            "симметричен, неверно.",
        ),
        ("B", "Таким образом, правильный ответ - B (стенокардия)."),
        ("D", "Думаю, это D."),
        ("C", "Выбираю C."),
        ("A", "На основании вышеизложенного наиболее вероятный диагноз — инфаркт миокарда."),
        ("C", "Скорее всего, у пациента перикардит."),
        ("C", "Ответ A неверен, так как боль не давящая. Верный ответ — C."),
        ("", "Нельзя исключить ни A, ни B."),
        ("", "Данных недостаточно для ответа."),
        ("B", "Если бы был подъём ST, ответом был бы A. Поэтому ответ B."),
        ("", "А что если это стенокардия? В любом случае нужна ЭКГ. С другой стороны, возможно иное."),
        ("B", "Ответ: В"),
        ("", "Ответ: Е"),
        ("", "Ответ: Г"),
        ("D", "расслоение аорты"),
        ("D", "Диагноз расслоения аорты наиболее вероятен."),
        ("A", "<answer>A</answer>"),
        ("C", '{"answer": "C"}'),
        ("B", "Неверным является утверждение B."),
        ("D", "Только D объясняет асимметрию пульса, следовательно, ответ D."),
        ("D", "Правильный ответ под буквой D."),
        ("B", "Клиническая картина соответствует стенокардии."),
        ("B", "Методом исключения получаем B."),
        ("A", "Речь идёт об инфаркте миокарда."),
        (
            "C",
            "Вариант A (инфаркт миокарда) маловероятен. Вариант B (стенокардия) не объясняет лихорадку. Вариант C "
            "(перикардит) объясняет все симптомы. Вариант D (расслоение аорты) исключён.",
        ),
        ("C", "Правильный вариант ответа — C."),
        ("A", "Думаю, правильный ответ A, хотя B тоже возможен."),
    ],
    "Russian, several": [
        ("AC", "Правильные ответы: A и C."),
        ("ABD", "Верны варианты A, B и D."),
        ("AC", "A, C"),
        ("ABC", "Правильные варианты: A, B, C"),
        ("BD", "Верными являются ответы B и D."),
        ("AC", "Правильные ответы: А, С"),
        ("AB", "A и B"),
        ("AD", "Верны утверждения A и D, а B и C неверны."),
        ("AC", "Ответ: АС"),
    ],
    "Russian yes or no": [
        ("A", "Да, это верно."),
        ("B", "нет"),
        ("B", "Ответ: нет"),
        ("B", "Правильный ответ: B. нет"),
        ("A", 'Таким образом, ответ "да" является верным.'),
        ("", "У пациента нет лихорадки, и нет данных за пневмонию."),
        ("A", "Выбор варианта А (да) обусловлен механизмом действия препарата."),
        ("A", "да"),
        ("A", "Ответ: да."),
        ("B", "Нет, данное утверждение неверно."),
        ("B", "Следовательно, правильный ответ – нет."),
        ("B", "B. нет"),
        ("A", "Ответ: А"),
        ("B", "Ответ: В"),
        ("A", "Таким образом, утверждение верно, ответ A."),
        ("B", "<think>Хм, наверное да.</think>\n\nНет"),
        ("B", 'Вариант B ("нет") является правильным, поскольку препарат не применяется у детей.'),
        ("", "Препарат применяется при бронхиальной астме, так как расширяет бронхи, и не имеет"),
        ("A", "Да"),
        ("B", "Нет."),
        ("B", "Ответ: B (нет)"),
        ("", "Ответ: A (нет)"),
        ("B", 'Выбор ответа "нет" обоснован тем, что препарат не метаболизируется в печени.'),
        ("A", "Таким образом, ответ — да."),
        ("A", "Верно."),
        ("A", "Да, препарат снижает давление. Нет данных о побочных эффектах."),
        ("", "Ответ: да/нет"),
        ("B", "Утверждение неверно."),
        ("A", "Следовательно, ответ «A. да» корректен."),
        ("B", "Таким образом, на вопрос следует ответить «нет»."),
        ("A", "Следовательно, утверждение о том, что препарат избирательно блокирует рецепторы, является верным."),
        ("B", "Опция B (нет) выбрана, потому что препарат не вводят внутривенно."),
        ("A", "Ответ: верно"),
    ],
    "Spanish": [
        ("D", "La respuesta correcta es la D"),
        ("B", "Respuesta: B"),
        ("B", "B"),
        ("C", "La opción C es la correcta porque la amilasa está elevada."),
        ("A", "La respuesta correcta es: **A. Apendicitis aguda.**"),
        ("", "A pesar de la fiebre, el paciente a veces mejora. E incluso come y bebe."),
        ("", "Lo siento, no puedo responder a esta pregunta."),
        ("", "La respuesta no es la A."),
        ("C", "La A es falsa, la B es falsa y la D también. Por tanto, la correcta es la C."),
        ("B", "Respuesta: A. Perdón, me equivoqué: la respuesta correcta es la B."),
        ("E", "Elijo la opción E."),
        ("D", "La opción incorrecta es la D."),
        ("A", "El diagnóstico más probable es apendicitis aguda."),
        ("", "El paciente tiene hepatitis B y déficit de vitamina D; grupo A de riesgo."),
        ("C", "<think>Creo que es la A</think>La respuesta es la C."),
        ("", "<think>Creo que es la A. La respuesta es la"),
        ("", "Tanto la B como la C podrían ser correctas."),
        ("B", "b) Colecistitis."),
        ("D", "Opción D"),
        (
            "B",
            'La opción B, "Colecistitis", es la respuesta correcta, ya que el signo de Murphy es positivo. La '
            "opción A es incorrecta.",
        ),
        ("C", '{"respuesta": "c"}'),
        ("D", "En conclusión, la alternativa correcta es la letra D."),
        ("", "La opción A es correcta. La opción B es correcta."),
        ("D", "Las demás opciones son correctas, salvo la D, que es falsa."),
        ("D", "D"),
        ("C", "La respuesta correcta es C."),
        (
            "B",
            "**Respuesta correcta: B) Colecistitis**\n\n**Justificación:** El dolor en hipocondrio derecho y el "
            "signo de Murphy orientan a colecistitis. A y C no encajan.",
        ),
        ("A", "Opción correcta: A"),
        ("E", "La correcta es la E."),
        ("D", "Por lo tanto, la respuesta es la opción D."),
        ("C", "Descartamos A y B. La opción C es la más probable."),
        (
            "B",
            "La opción A es incorrecta porque no hay fiebre. La opción B es correcta. La opción C es incorrecta. "
            "La D y la E también son incorrectas.",
        ),
        ("C", "Se trata de una pancreatitis aguda."),
        ("E", "El diagnóstico es úlcera perforada."),
        ("", "A veces el dolor es intenso. Y el paciente presenta fiebre. E incluso vómitos. O diarrea."),
        ("", "El paciente A tiene hepatitis C y el factor B está elevado en la figura D."),
        ("", "No puedo proporcionar consejo médico."),
        ("", "Ninguna de las opciones es correcta."),
        ("", "Podría ser A o B."),
        ("B", "Marcaría la B."),
        ("D", "Inicialmente pensé en la A, pero la respuesta correcta es la D."),
        ("C", "La respuesta es A. No, espera: la respuesta es la C."),
        ("B", "No es la A, sino la B."),
        ("E", "<think>¿A? ¿B?</think>Respuesta: E"),
        ("", "<thinking>La respuesta es la B"),
        ("A", '{"respuesta_correcta": "A"}'),
        ("D", "<respuesta>D</respuesta>"),
        ("B", "\\boxed{B}"),
        ("C", "La afirmación falsa es la C."),
        ("A", "a"),
        ("E", "Respuesta: e)"),
        (
            "D",
            "La opción D, diverticulitis, es la que mejor explica el cuadro, dado que el dolor se localiza en la "
            "fosa ilíaca izquierda.",
        ),
        ("", "En primer lugar, analicemos la opción A: la apendicitis aguda"),
        ("C", "**Respuesta: C. Pancreatitis aguda.**"),
        ("D", "La respuesta es: D"),
        ("B", "La opción correcta es la B: Colecistitis."),
        ("A", "Respuesta final: A"),
        (
            "B",
            "Analicemos las opciones:\n\nA. Apendicitis aguda: dolor en fosa ilíaca derecha. No encaja.\nB. "
            "Colecistitis: signo de Murphy positivo. Encaja.\nC. Pancreatitis aguda: amilasa elevada. No encaja.\n"
            "D. Diverticulitis: fosa ilíaca izquierda. No encaja.\nE. Úlcera perforada: abdomen en tabla. No "
            "encaja.\n\nPor tanto, la respuesta correcta es la B.",
        ),
        ("E", "Considero que la respuesta correcta es E."),
        ("C", "La respuesta adecuada sería la opción C."),
        ("B", "Es la B."),
        ("D", "La D."),
        ("A", "Creo que es la A."),
        ("C", "La opción C es la que mejor se ajusta al cuadro clínico."),
        ("A", "El paciente tiene apendicitis aguda."),
        ("C", "Si hubiera fiebre, sería la B; como no la hay, la respuesta es la C."),
        ("", "Las opciones A y B son incorrectas."),
        ("", "No hay suficiente información para responder."),
        ("", "Entre A y C no puedo decidirme."),
        ("", "A la exploración, el abdomen está blando. E. coli en el urocultivo."),
        ("D", "Todas son correctas excepto la D."),
        ("E", "La única falsa es la E."),
        ("A", "Apendicitis aguda"),
        ("B", "respuesta: b"),
        ("A", "La respuesta correcta es la letra A."),
        ("C", "La alternativa correcta es la 'C'."),
        ("D", "Diagnóstico: Diverticulitis"),
        ("E", "<answer>E</answer>"),
        ("D", "</think>La respuesta correcta es la D"),
        ("D", "Por todo ello, me quedo con la opción D."),
        ("E", "La opción A no es correcta. La opción C tampoco. La opción E es la respuesta."),
        ("C", "Claramente, la C"),
        ("E", "La respuesta no es A sino E."),
        ("B", "La respuesta debe ser B."),
        ("A", "La A encaja mejor con el cuadro."),
        ("C", "Todo apunta a una pancreatitis aguda."),
        ("D", "La opción D no está indicada en este caso. Las demás opciones sí lo están."),
        ("D", "Podríamos pensar en la A, pero la edad y la localización hacen más probable la D."),
        ("", "El grupo sanguíneo es A, el factor Rh positivo y la hepatitis B negativa."),
        ("B", "La respuesta es, sin duda, la B."),
        ("C", "Yo diría que la C."),
    ],
    "Spanish, several": [
        ("AC", "Las respuestas correctas son A y C."),
        ("ABE", "A, B y E"),
        ("AB", "La opción A es correcta. La opción B es correcta. Las demás son falsas."),
        ("AC", "A y C"),
        ("BCD", "Son correctas las opciones B, C y D."),
        ("ABD", "ABD"),
        ("AD", "Las correctas son la A y la D."),
        ("BCE", "Respuestas correctas: B, C, E"),
        ("AD", "A, D"),
        ("ACE", "Las opciones A, C y E son correctas; B y D son incorrectas."),
        ("AB", "Tanto A como B son correctas."),
        ("AC", "A: V, B: F, C: V, D: F, E: F"),
        ("ACE", "La respuesta correcta incluye A, C y E."),
        ("ABD", "Las correctas son A, B y D; C y E son falsas."),
    ],
    "Spanish yes or no": [
        ("A", "Sí, está indicado."),
        ("B", "No"),
        ("B", "La respuesta es no."),
        ("A", "sí"),
        ("B", "Respuesta: No"),
        ("A", "Sí."),
        ("B", "No, no está indicado."),
        ("A", "La respuesta correcta es: Sí"),
        ("B", "No es correcto."),
    ],
    "Chinese abdomen": [
        ("", "分析如下：A项急性胆囊炎多有发热；B项胆囊癌多见于老年人；C项胆总管结石可有黄疸；D项"),
    ],
    "Chinese antibiotics, several": [
        ("AB", "正确的说法是A和B，C、D、E的说法是错误的。"),
        ("ACD", "符合题意的是A、C、D三项。"),
    ],
    "Chinese drugs": [
        ("E", "男性乳房发育是螺内酯的常见不良反应。"),
        ("", "赖诺普利可引起干咳，氨氯地平可引起水肿，普萘洛尔可诱发哮喘。"),
        ("A", "踝部水肿最常见于二氢吡啶类钙通道阻滞剂，即A。"),
        ("C", "根据题意，能升高血钙的是噻嗪类利尿剂，对应选项C。"),
        ("", "几种药物都可作为初始治疗，需结合患者具体情况，无法给出唯一答案。"),
    ],
    "Chinese effects": [
        ("", "A、B、C、D、E各有道理。"),
    ],
    "Chinese effects, several": [
        ("CE", "正确选项：C、E\n解析：A错误，心输出量减少；B错误，阻力升高；D错误，心率增快。"),
        ("AB", "A对，B对，C错，D错，E错。"),
        ("AD", "本题答案选A和D两项"),
    ],
    "Chinese germs": [
        ("", "肺炎链球菌和脑膜炎奈瑟菌均为成人常见病原体。"),
        ("", "需要进一步行脑脊液培养才能明确诊断。"),
    ],
    "Chinese germs, several": [
        ("ABC", "答：A B C"),
        ("AC", "A项和C项均正确，B项、D项、E项均错误。"),
    ],
    "Chinese hepatitis": [
        ("B", "HBsAg阳性超过半年，符合慢性乙型肝炎。"),
    ],
    "English drugs": [
        (
            "B",
            "Step 1: The patient has diabetic nephropathy with albuminuria.\nStep 2: ACE inhibitors slow progression.\n"
            "Step 3: Amlodipine lowers pressure but does not reduce albuminuria as well. Hydrochlorothiazide may "
            "worsen glucose control. Propranolol masks hypoglycemia. Spironolactone risks hyperkalemia.\n\nConclusion: "
            "lisinopril is the drug to start.",
        ),
        ("", "Lisinopril causes cough, amlodipine causes edema, and propranolol causes bronchospasm."),
        (
            "",
            "Several of these agents could be reasonable first choices; guidelines differ, and no single one can "
            "be named without more information.",
        ),
        ("", "The correct answer would have to be determined after measuring the plasma renin activity."),
    ],
    "English drugs, several": [
        (
            "BE",
            "ACE inhibitors and potassium-sparing diuretics raise potassium. Lisinopril and spironolactone are "
            "therefore the drugs to stop.",
        ),
        ("AC", "Correct answers:\n1. A\n2. C"),
        ("BD", "- A: incorrect\n- B: correct\n- C: incorrect\n- D: correct\n- E: incorrect"),
    ],
    "English effects": [
        (
            "C",
            "In acute heart failure the left ventricle cannot empty. Cardiac output falls, resistance rises, and "
            "the heart beats faster. What you would measure is an increased left ventricular end-diastolic pressure.",
        ),
    ],
    "English germs": [
        ("", "S. pneumoniae and N. meningitidis together cause most cases in adults."),
        ("", "Could be A. Could be C. Hard to say without a Gram stain."),
        ("", "The gram stain will guide therapy. Start ceftriaxone and vancomycin empirically."),
    ],
    "English germs, several": [
        ("AC", "A and C are the organisms that most often cause it; B and D do not."),
        ("AD", "The answers are (A) and (D)."),
        ("", "A is true. I am not certain about the remaining options."),
    ],
    "English vaccines": [
        ("B", "He needs a tetanus booster."),
        ("C", "Since he completed his series two years ago, no vaccination needed."),
        ("", "Hepatitis A and B differ in their route of transmission."),
    ],
    "English vitamins 2": [
        ("B", "Subacute combined degeneration results from vitamin B12 deficiency."),
        ("A", "Prothrombin time is prolonged and corrects after vitamin K, so the newborn lacks vitamin K."),
        ("", "Fat-soluble vitamins are A, D, E and K."),
    ],
    "French abdomen": [
        ("C", "Il faut cocher la case C."),
    ],
    "French drugs": [
        ("B", "C'est la warfarine (B) qui exige un suivi de l'INR."),
    ],
    "French drugs 2": [
        (
            "B",
            "Chez un diabétique avec microalbuminurie, on préfère un IEC. L'amlodipine a moins d'effet sur la protéin"
            "urie, l'hydrochlorothiazide déséquilibre la glycémie, le propranolol masque les hypoglycémies et la "
            "spironolactone expose à l'hyperkaliémie. Le lisinopril est donc le traitement à instaurer.",
        ),
        ("E", "La gynécomastie est un effet indésirable bien connu de la spironolactone."),
        (
            "",
            "Le lisinopril fait tousser, l'amlodipine donne des œdèmes et le propranolol est contre-indiqué dans l'asthme.",
        ),
    ],
    "French germs": [
        ("C", "Le purpura oriente vers le méningocoque."),
        ("", "Le pneumocoque et le méningocoque sont les germes les plus fréquents chez l'adulte."),
        ("", "Une ponction lombaire s'impose avant de conclure."),
    ],
    "French germs, several": [
        ("AC", "A et C sont à cocher."),
        ("BDE", "Les bonnes réponses sont les suivantes : B, D et E."),
        ("ABC", "A : vrai. B : vrai. C : vrai. D : faux. E : faux."),
    ],
    "French statements": [
        ("", "A est vrai et C est vrai."),
        ("", "Il y a plusieurs réponses possibles, cela dépend du contexte clinique."),
    ],
    "French statements, several": [
        ("BCE", "A) Faux\nB) Vrai\nC) Vrai\nD) Faux\nE) Vrai"),
        ("CD", "Il convient de retenir C et D."),
        ("ABD", "Bonnes réponses : A, B, D. En effet, C et E sont inexactes."),
        ("BE", "Les items exacts sont donc les items B et E."),
        ("B", "La seule réponse exacte est la B."),
    ],
    "French vitamins": [
        ("B", "L'héméralopie traduit une carence en vitamine A."),
    ],
    "Japanese abdomen": [
        ("E", "答えはB……いえ、違います。答えはEです。"),
    ],
    "Japanese drugs": [
        ("", "リシノプリルは空咳、アムロジピンは浮腫、プロプラノロールは喘息発作を起こしうる。"),
        ("", "いずれの薬剤も使用できるため、一つに絞ることはできない。"),
    ],
    "Japanese effects": [
        ("", "Aが正しいように思えるが、Cも正しいように見え、決め手に欠ける。"),
    ],
    "Japanese effects, several": [
        ("CE", "正解はＣ、Ｅの２つです。"),
        ("AB", "A ○\nB ○\nC ×\nD ×\nE ×"),
        ("BD", "答えはBとDになります。Aは減少、Cは低下、Eは低下するため誤りです。"),
    ],
    "Japanese germs": [
        ("D", "妊婦や高齢者の髄膜炎ではリステリアを考慮する。"),
        ("C", "紫斑を伴うことから髄膜炎菌が原因と推定される。"),
        ("", "肺炎球菌と髄膜炎菌はいずれも成人の主な起炎菌である。"),
        ("", "髄液検査の結果を待つ必要がある。"),
    ],
    "Japanese germs, several": [
        ("DE", "新生児髄膜炎の原因として多いのはDとEである。"),
        ("AB", "選択：a・b"),
    ],
    "Japanese vitamins": [
        ("B", "夜盲症の原因はビタミンA欠乏である。"),
    ],
    "Russian days": [
        ("D", "Инкубационный период составляет в среднем 21 день."),
    ],
    "Russian drugs": [
        ("D", "При бронхиальной астме противопоказан пропранолол."),
        ("E", "Гинекомастию вызывает спиронолактон."),
        ("", "Лизиноприл вызывает кашель, амлодипин — отёки, пропранолол — бронхоспазм."),
        ("", "Все перечисленные препараты могут применяться, выбор зависит от сопутствующих заболеваний."),
    ],
    "Russian drugs, several": [
        ("BE", "Калий повышают лизиноприл и спиронолактон, то есть B и E."),
        ("AC", "Правильные варианты: A) и C)."),
    ],
    "Russian germs": [
        ("D", "У беременных менингит часто вызывает листерия."),
        ("", "Пневмококк и менингококк — самые частые возбудители у взрослых."),
        ("", "Без посева ликвора судить о возбудителе нельзя."),
    ],
    "Russian vitamins": [
        ("B", "Куриная слепота развивается при дефиците витамина А."),
    ],
    "Russian yes or no 2": [
        ("", "Вопрос сформулирован нечётко."),
    ],
    "Russian yes or no 3": [
        ("B", "Указанное действие для препарата не характерно, поэтому правильным ответом является «нет»."),
    ],
    "Spanish drugs": [
        ("D", "En el asma está contraindicado el propranolol."),
        ("A", "Los edemas maleolares son típicos del amlodipino."),
        ("", "El lisinopril produce tos, el amlodipino edemas y el propranolol broncoespasmo."),
        ("", "Cualquiera de las opciones A, B o C sería válida."),
    ],
    "Spanish effects": [
        ("D", "La D, porque el fármaco tiene efecto cronotropo negativo."),
        ("A", "Es la A la que responde a la pregunta."),
        ("", "A, B, C y D son manifestaciones posibles y no es posible elegir una sola."),
    ],
    "Spanish germs": [
        ("D", "En la embarazada hay que cubrir Listeria."),
        ("B", "Yo respondería B."),
        ("", "El neumococo y el meningococo son los gérmenes más frecuentes en el adulto."),
        ("", "Hace falta un cultivo para decidir."),
    ],
    "Spanish germs, several": [
        ("AC", "A y C son correctas."),
    ],
    "Spanish vitamins": [
        ("B", "La ceguera nocturna se debe al déficit de vitamina A."),
    ],
    "Chinese abdomen 2": [
        ("", "患者既往曾服用二甲双胍，因腹泻停药。"),
        ("", "不是二甲双胍。"),
        ("", "二甲双胍的作用机制包括"),
        ("B", "二甲双胍一般不引起低血糖，吡格列酮可致水肿，甘精胰岛素需注射给药，故引起该患者低血糖的是格列吡嗪。"),
        ("", "A和B都能降糖。"),
        ("A", "A ✅ B ❌ C ❌ D ❌"),
        ("C", "虽然A是一线药物，但患者肾功能衰竭，因此应改用C。"),
    ],
    "English abdomen": [
        ("", "The patient was previously treated with metformin but did not tolerate it."),
        ("", "This is clearly not metformin."),
        ("", "Unlike metformin, the drug in question acts on the pancreas."),
        ("", "The mechanism of action of metformin involves"),
        ("", "First, consider metformin. It lowers hepatic glucose output and"),
        ("", "Option A: Metformin\nOption B: Glipizide\nOption C: Insulin glargine\nOption D: Pioglitazone"),
        ("", "Which of the following is the best choice? A. Metformin B. Glipizide C. Insulin glargine D. Pioglitazone"),
        (
            "B",
            "Looking at each choice: metformin would not cause hypoglycemia, pioglitazone causes edema, insulin "
            "glargine is given by injection. The patient takes an oral drug and has hypoglycemia; this is glipizide.",
        ),
        ("C", "After weighing A against C, C wins."),
        ("", "Both A and B lower glucose."),
    ],
    "English abdomen 2": [
        (
            "D",
            "The combination of epigastric pain, vomiting and raised lipase points to pancreatitis rather than cholecystitis.",
        ),
        ("", "Question 12 of section A: a woman presents with pain. Refer to table B for the results."),
    ],
    "English abdomen 2, several": [
        ("AC", "A - True\nB - False\nC - True\nD - False"),
        ("", "A is correct because of the fever. Regarding B,"),
    ],
    "French abdomen 2": [
        ("", "Le patient prenait de la metformine, arrêtée pour diarrhée."),
        ("", "Ce n'est pas la metformine."),
        ("", "Le mécanisme d'action de la metformine repose sur"),
        ("A", "A et B font baisser la glycémie, mais c'est A qu'on donne en première intention."),
        ("", "A et B font baisser la glycémie."),
    ],
    "French abdomen 2, several": [
        ("AE", "Les traitements qui n'exposent pas à l'hypoglycémie sont la metformine et l'acarbose (A et E)."),
    ],
    "Japanese abdomen 2": [
        ("", "患者は以前メトホルミンを内服していたが、下痢のため中止した。"),
        ("", "メトホルミンではない。"),
        ("", "メトホルミンの作用機序としては"),
        ("", "AもBも血糖を下げる。"),
    ],
    "Japanese abdomen 2, several": [
        ("AE", "体重増加を来しにくいのはA、Eである。"),
    ],
    "Russian abdomen": [
        ("", "Ранее больной получал метформин, который был отменён из-за диареи."),
        ("", "Это не метформин."),
        ("", "Механизм действия метформина заключается в"),
    ],
    "Russian yes or no 4": [
        ("", "Препарат применяется при диабете 2 типа."),
    ],
    "Spanish abdomen": [
        ("", "El paciente tomaba metformina, suspendida por diarrea."),
        ("", "No es la metformina."),
        ("", "El mecanismo de acción de la metformina consiste en"),
        (
            "B",
            "La metformina no produce hipoglucemia, la pioglitazona causa edemas y la insulina se inyecta. El respons"
            "able es, pues, la glipizida.",
        ),
        ("D", "La insuficiencia cardiaca contraindica la pioglitazona, de ahí que la respuesta sea la D."),
        ("A", "A y B bajan la glucosa, pero la A es de primera línea."),
        ("C", "Con insuficiencia renal la A está contraindicada; B y D tampoco convienen. Nos quedamos con la C."),
        ("", "A y B bajan la glucosa."),
    ],
}

ROWS = [(name, expected, output) for name, rows in OUTPUTS.items() for expected, output in rows]
IDS = [f"{name} {index}" for name, rows in OUTPUTS.items() for index, _ in enumerate(rows)]

# The letters that each of the 150 real outputs states, as judged by reading them, not the right ones.
JUDGED = (
    "B B A D A C C B A D A A B C D D B A A A C D C D D "
    "C D D B D C AE D D B B A A A C CE B A D B E D CD C D "
    "C A B A A B A B A A A C B C D D C A B A D A B A C "
    "B B B A D C D B C C A D D D B B B D D A B D C C A "
    "A A A A B B A A A A A A B A B B A B B B B B A A A "
    "C A C C A B D D B E A D D D B E C B E B D E D D C"
)

DECORATIONS = ("{0}", "({0})", "**{0}**", "{0})", '"{0}"', "[{0}]", "{0}. {1}", "{0}) {1}", "{0}: {1}", "{1} ({0})", "{1}")
ANNOUNCEMENTS = {
    "English": ("Answer: {}", "The correct answer is {}.", "I would choose {} because of the history."),
    "Chinese": ("答案：{}", "正确答案是{}。", "因此选{}，因为病史典型。"),
    "Japanese": ("正解：{}", "したがって、答えは{}です。", "{}を選びます。"),
    "French": ("Réponse : {}", "La bonne réponse est {}.", "Je choisis {} car l'anamnèse est typique."),
    "Russian": ("Ответ: {}", "Правильный ответ — {}.", "Выбираю {}, так как анамнез типичен."),
    "Spanish": ("Respuesta: {}", "La respuesta correcta es {}.", "Elijo {} porque la historia es típica."),
}

HOSTILE = {
    "spaces": " ",
    "line breaks": "\n",
    "announcements without an answer": "Answer: ",
    "statements": "The answer is A. ",
    "a list of letters": "A, A, A ",
    "letters in parentheses": "(A)",
    "ranges": "A-B ",
    "opened thinking": "<think>",
    "opened braces": "{",
    "opened parentheses": "(((((",
    "opened brackets": "[",
    "opened boxes": "\\boxed{",
    "opened fields": '"answer": ',
    "opened tags": "<answer>",
    "emphasis": "**",
    "Chinese": "的是选",
    "Japanese": "正解は",
    "Cyrillic": "не ",
    "an option's text": "pulmonary embolism ",
    "combining marks": "\u0300\u0323",
    "labels in lines": "\n- A",
    "parentheses and conjunctions": "A) and ",
    "a verb and its adverbs": "is, most likely the ",
    "halves of the paper's format": "###Answer: OPTION A ",
}


def letters(text: str) -> frozenset[str] | None:
    return frozenset(text) or None


def language_of(name: str) -> str:
    return LANGUAGES[name.split(",")[0].split()[0]]


def options_of(name: str) -> dict[str, str]:
    return OPTIONS[name.split(",")[0]]


def read(name: str, output: str) -> frozenset[str] | None:
    return read_answer(output, options_of(name), language_of(name), several=name.endswith("several"))


@pytest.mark.parametrize(("name", "expected", "output"), ROWS, ids=IDS)
def test_an_output_is_read_as_a_careful_person_reads_it(name: str, expected: str, output: str) -> None:
    assert read(name, output) == letters(expected)


def test_every_language_has_at_least_fifty_outputs() -> None:
    for language in LANGUAGES.values():
        assert sum(language_of(name) == language for name, _, _ in ROWS) >= 50


def test_thinking_in_front_changes_no_reading() -> None:
    for name, _, output in ROWS:
        if "think" not in output.lower() and "channel" not in output:
            assert read(name, f"<think>The answer is A. No, C.</think>\n{output}") == read(name, output), output


def test_thinking_that_never_ends_makes_every_output_unread() -> None:
    for name, _, output in ROWS:
        if "think" not in output.lower() and "channel" not in output:
            assert read(name, f"<think>{output}") is None, output


@pytest.mark.parametrize("end", ["</s>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<eos>", "\n\n  "])
def test_the_end_of_the_turn_changes_no_reading(end: str) -> None:
    for name, _, output in ROWS:
        assert read(name, output + end) == read(name, output), output


def test_what_a_model_goes_on_with_after_its_turn_does_not_count() -> None:
    for name, expected, output in ROWS:
        if expected and "<|" not in output:
            assert read(name, f"{output}<|im_end|>\n<|im_start|>user\nThe answer is A.") == read(name, output), output


def test_every_beginning_of_an_output_is_read_or_left_but_never_breaks_the_reader() -> None:
    for name, _, output in ROWS[::7]:
        for length in range(0, len(output), 3):
            reading = read(name, output[:length])
            assert reading is None or reading <= options_of(name).keys(), output[:length]


def test_one_letter_at_most_is_read_where_one_may_be_right() -> None:
    for name, _, output in ROWS:
        reading = read_answer(output, options_of(name), language_of(name))
        assert reading is None or (len(reading) == 1 and reading <= options_of(name).keys()), output


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_letter_is_read_in_every_decoration(language: str) -> None:
    options = OPTIONS[language]
    for announcement in ANNOUNCEMENTS[language]:
        for decoration in DECORATIONS:
            for letter, text in options.items():
                output = announcement.format(decoration.format(letter, text.rstrip(".")))
                assert read(language, output) == {letter}, output
                assert read(f"{language}, several", output) == {letter}, output


def test_a_letter_after_a_noun_that_it_belongs_to_is_no_answer() -> None:
    nouns = ("vitamin", "hepatitis", "group", "type", "grade", "factor", "Figure", "patient", "vitamina", "hépatite", "тип")
    for noun in nouns:
        for letter in "ABCD":
            assert read("English", f"The patient has {noun} {letter}.") is None
            assert read("English", f"The answer is {noun} {letter}.") is None


def test_no_word_of_one_letter_is_an_answer() -> None:
    prose = {
        "English": "A patient was seen. A day later a second one came, and I agreed.",
        "French": "A noter : il a de la fièvre à 39. A l'examen, il y a une douleur.",
        "Spanish": "A los dos días mejoró. E ingresó a la sala. Y a veces o bebe o come.",
        "Russian": "В анамнезе травма. А также боль. С учётом этого, а в целом и без него, с ним.",
    }
    for language, text in prose.items():
        assert read(language, text) is None, text


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("###Rationale: It fits.\n###Answer: OPTION B IS CORRECT.", "B"),
        ("###Answer: OPTION B IS CORRECT.\n###Rationale: It fits.", "B"),
        ("###Answer: OPTION B IS CORRECT", "B"),
        ("###Answer: OPTION B IS CORRECT.</s>", "B"),
        ("###Answer: OPTION B IS CORRECT.<|end_of_text|>", "B"),
        ("###Answer: OPTION B IS CORRECT.<|eot_id|><|eot_id|>", "B"),
        ("###Answer: OPTION B IS CORRECT.<|im_end|>", "B"),
        ("###Answer: OPTION B IS CORRECT<eos>", "B"),
        ("###Answer: OPTION A IS CORRECT.\n###Answer: OPTION B IS CORRECT.", "B"),
        ("###Answer: OPTION A IS CORRECT.\n###Answer: OPTION B IS", "A"),
        ("###Answer: OPTION E IS CORRECT.", ""),
        ("###Answer: OPTION B", ""),
        ("###Answer: OPTION  IS CORRECT.", ""),
        ("###Rationale: The answer is B because", ""),
        ("The answer is B.", ""),
        ("", ""),
    ],
)
def test_the_papers_format_is_read_and_nothing_else(text: str, expected: str, several: bool) -> None:
    assert read_paper_answer(text, OPTIONS["English"], several=several) == letters(expected)


def test_several_letters_of_the_papers_format_count_only_where_several_may_be_right() -> None:
    for text in ("###Answer: OPTION A,C IS CORRECT.", "###Rationale: x\n###Answer: OPTION A, C IS CORRECT.</s>"):
        assert read_paper_answer(text, OPTIONS["English"], several=True) == {"A", "C"}
        assert read_paper_answer(text, OPTIONS["English"], several=False) is None
        assert read_answer(text, OPTIONS["English"], "en", several=True) == {"A", "C"}
        assert read_answer(text, OPTIONS["English"], "en") is None


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_megabyte_of_hostile_text_takes_less_than_a_second(unit: str, several: bool) -> None:
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    for read_text in (
        lambda: read_answer(text, OPTIONS["English"], "en", several=several),
        lambda: read_answer(text, OPTIONS["Russian yes or no"], "ru", several=several),
        lambda: read_paper_answer(text, OPTIONS["English"], several=several),
    ):
        started = time.process_time()
        read_text()
        assert time.process_time() - started < 1


def test_an_answer_is_found_at_either_end_of_a_long_text() -> None:
    filler = "The history of the patient is long. " * 5_000
    assert read("English", f"The answer is B.\n{filler}") == {"B"}
    assert read("English", f"{filler}\nThe answer is B.") == {"B"}


@pytest.mark.skipif(not REAL_OUTPUTS.is_file(), reason=f"the real outputs are not here: {REAL_OUTPUTS}")
def test_of_150_real_outputs_97_in_a_hundred_are_read_and_none_wrongly() -> None:
    with REAL_OUTPUTS.open(encoding="utf-8") as lines:
        samples = [json.loads(line) for line in lines]
    readings = [
        read_answer(
            sample["model_output"],
            sample["options"],
            LANGUAGES[sample["language"]],
            several=sample["language"] in ("French", "Japanese"),
        )
        for sample in samples
    ]
    judged = [letters(one) for one in JUDGED.split()]
    assert [index for index, one in enumerate(readings) if one and one != judged[index]] == []
    assert sum(one is not None for one in readings) >= 0.97 * len(judged)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The correct options are A and E."),
        ("en", "Answer: A, F"),
        ("es", "Las opciones correctas son A y E."),
        ("fr", "Les réponses exactes sont A et E."),
        ("ru", "Верные ответы: A и E."),
        ("zh", "正确答案是A和E。"),
        ("ja", "正解はAとEです。"),
    ],
)
def test_a_list_with_a_letter_outside_the_options_is_unread_and_one_within_them_is_read(language: str, text: str) -> None:
    four = {"A": "iron", "B": "zinc", "C": "copper", "D": "lead"}
    six = {**four, "E": "tin", "F": "gold"}
    assert read_answer(text, four, language, several=True) is None
    assert read_answer(text, six, language, several=True) == frozenset("AF" if "F" in text else "AE")
